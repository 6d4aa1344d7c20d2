"""Advantages against a hand-worked example and against openrlhf's own functions."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from actors.openrlhf import compute_approx_kl
from actors.rows import flat, lengths
from trainers.advantages import add_advantages, explained_variance, generalised_advantages, token_rewards
from trainers.config import AlgorithmConfig


def table(rows: int = 5, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 9, rows)
    lists = lambda: pa.array([rng.normal(size=n).astype(np.float32) for n in counts], pa.list_(pa.float32()))  # noqa: E731
    return pa.table(
        {
            "response": pa.array([list(range(n)) for n in counts], pa.list_(pa.int32())),
            "logprobs": lists(),
            "ref_logprobs": lists(),
            "values": lists(),
            "reward": pa.array(rng.normal(size=rows).astype(np.float32)),
        }
    )


def test_three_tokens_by_hand() -> None:
    # gamma 0.5, lambda 0.5, rewards 1, 0, 2, values 0.5, 1, -1.
    # deltas: 1 + 0.5 * 1 - 0.5 = 1;  0 + 0.5 * -1 - 1 = -1.5;  2 + 0 - -1 = 3
    # advantages from the end: 3;  -1.5 + 0.25 * 3 = -0.75;  1 + 0.25 * -0.75 = 0.8125
    got = generalised_advantages(np.array([1.0, 0.0, 2.0]), np.array([0.5, 1.0, -1.0]), gamma=0.5, lam=0.5)
    assert got.tolist() == [0.8125, -0.75, 3.0]


def test_the_score_comes_at_the_last_token_and_the_kl_at_every_one() -> None:
    rows = pa.table(
        {
            "response": pa.array([[7, 8], [9]], pa.list_(pa.int32())),
            "logprobs": pa.array([[-1.0, -2.0], [-0.5]], pa.list_(pa.float32())),
            "ref_logprobs": pa.array([[-1.5, -1.0], [-0.5]], pa.list_(pa.float32())),
            "reward": pa.array([2.0, -30.0], pa.float32()),
        }
    )
    got = token_rewards(rows, AlgorithmConfig(kl_coef=0.1, kl_estimator="k1", reward_clip=5.0))
    assert got == pytest.approx([-0.05, 0.1 + 2.0, -5.0])


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (1.0, 0.95), (0.9, 0.8)])
def test_equal_to_openrlhf(gamma: float, lam: float) -> None:
    from openrlhf.models.utils import compute_reward
    from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker

    rows = table()
    algorithm = AlgorithmConfig(gamma=gamma, gae_lambda=lam, kl_coef=0.1, whiten_advantages=False)
    ours = add_advantages(rows, algorithm)

    counts = lengths(rows, "response")
    width = counts.max()
    padded = {
        name: torch.stack(
            [torch.nn.functional.pad(torch.tensor(row), (0, width - len(row))) for row in rows.column(name).to_pylist()]
        )
        for name in ("logprobs", "ref_logprobs", "values")
    }
    mask = (torch.arange(width) < torch.tensor(counts)[:, None]).float()
    kl = compute_approx_kl(padded["logprobs"], padded["ref_logprobs"]) * mask
    reward = compute_reward(torch.tensor(rows.column("reward").to_numpy()), 0.1, kl, mask)
    advantages, returns = RemoteExperienceMaker.get_advantages_and_returns(
        None, padded["values"], reward, mask, gamma, lam
    )
    np.testing.assert_allclose(flat(ours, "advantages"), advantages[mask.bool()].numpy(), atol=1e-5)
    np.testing.assert_allclose(flat(ours, "returns"), returns[mask.bool()].numpy(), atol=1e-5)


def test_whitened_advantages_have_mean_0_and_variance_1_and_returns_stay() -> None:
    rows = table(rows=20)
    white = add_advantages(rows, AlgorithmConfig(whiten_advantages=True))
    raw = add_advantages(rows, AlgorithmConfig(whiten_advantages=False))
    assert flat(white, "advantages").mean() == pytest.approx(0.0, abs=1e-6)
    assert flat(white, "advantages").var() == pytest.approx(1.0, abs=1e-5)
    assert flat(white, "returns").tolist() == flat(raw, "returns").tolist()


def test_explained_variance_of_a_perfect_and_of_a_blind_critic() -> None:
    column = pa.array([[1.0, 2.0], [4.0]], pa.list_(pa.float32()))
    zeros = pa.array([[0.0, 0.0], [0.0]], pa.list_(pa.float32()))
    assert explained_variance(pa.table({"returns": column, "values": column})) == 1.0
    assert explained_variance(pa.table({"returns": column, "values": zeros})) == 0.0
