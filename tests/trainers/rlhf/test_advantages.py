"""Advantages and weights against hand-worked examples and against openrlhf's own functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from actors.modeling.openrlhf import compute_approx_kl
from actors.modeling.rows import flat, lengths, trained_rows
from trainers.config.algorithm import AlgorithmConfig
from trainers.rlhf.advantages import add_advantages, add_weights, explained_variance, token_rewards
from trainers.rlhf.algorithms import ALGORITHMS, generalized_advantages, returns_to_go


def table(rows: int = 6, samples: int = 2, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 9, rows)
    lists = lambda: pa.array([rng.normal(size=n).astype(np.float32) for n in counts], pa.list_(pa.float32()))  # noqa: E731
    return pa.table(
        {
            "response": pa.array([list(range(n)) for n in counts], pa.list_(pa.int32())),
            "group": pa.array(np.arange(rows) // samples, pa.int64()),
            "finished": pa.array([row % 3 != 2 for row in range(rows)]),
            "logprobs": lists(),
            "ref_logprobs": lists(),
            "values": lists(),
            "score": pa.array(rng.normal(size=rows)),
        }
    )


def with_advantages(rows: pa.Table, **settings: Any) -> pa.Table:
    algorithm = AlgorithmConfig(**settings)
    return add_advantages(add_weights(rows, algorithm, longest=10), algorithm, algorithm.kl_coef)


def test_three_tokens_by_hand() -> None:
    # gamma 0.5, lambda 0.5, rewards 1, 0, 2, values 0.5, 1, -1.
    # deltas: 1 + 0.5 * 1 - 0.5 = 1;  0 + 0.5 * -1 - 1 = -1.5;  2 + 0 - -1 = 3
    # advantages from the end: 3;  -1.5 + 0.25 * 3 = -0.75;  1 + 0.25 * -0.75 = 0.8125
    got = generalized_advantages(np.array([1.0, 0.0, 2.0]), np.array([0.5, 1.0, -1.0]), gamma=0.5, lam=0.5)
    assert got.tolist() == [0.8125, -0.75, 3.0]
    assert returns_to_go(np.array([1.0, 0.0, 2.0]), 0.5).tolist() == [1.5, 1.0, 2.0]


def test_where_openrlhf_is_biased_a_gap_carries_the_next_value() -> None:
    # Four tokens, the third masked: not an action. Rewards 0, 0, -, 1, values 1, 2, -, 3, gamma 1, lambda 0.5.
    # Actions alone: deltas 0 + 2 - 1 = 1;  0 + 3 - 2 = 1;  1 + 0 - 3 = -2;  advantages 1 + .5 * 0 = 1;  1 + .5 * -2 = 0;  -2
    from experience_maker import RemoteExperienceMaker

    ours = generalized_advantages(np.array([0.0, 0.0, 1.0]), np.array([1.0, 2.0, 3.0]), gamma=1.0, lam=0.5)
    assert ours.tolist() == [1.0, 0.0, -2.0]
    theirs, _ = RemoteExperienceMaker.get_advantages_and_returns(
        None,
        torch.tensor([[1.0, 2.0, 9.0, 3.0]]),
        torch.tensor([[0.0, 0.0, 0.0, 1.0]]),
        torch.tensor([[1.0, 1.0, 0.0, 1.0]]),
        1.0,
        0.5,
    )
    # At the second token theirs bootstraps from the gap, whose value counts as 0: 0 + 0 - 2 + ..., not 0 + 3 - 2 + ...
    assert theirs[0, 3].item() == -2.0
    assert theirs[0, 1].item() != 0.0


GROUPS = np.array([0, 0, 0, 1, 1])
SCORES = np.array([1.0, 2.0, 6.0, 5.0, 5.0])


@pytest.mark.parametrize(
    ("name", "shaped"),
    [
        ("ppo", [1.0, 2.0, 6.0, 5.0, 5.0]),
        ("reinforce_pp", [1.0, 2.0, 6.0, 5.0, 5.0]),
        ("dr_grpo", [-2.0, -1.0, 3.0, 0.0, 0.0]),
        ("reinforce_pp_baseline", [-2.0, -1.0, 3.0, 0.0, 0.0]),
        ("rloo", [-3.0, -1.5, 4.5, 0.0, 0.0]),
        ("grpo", [-2 / 7**0.5, -1 / 7**0.5, 3 / 7**0.5, 0.0, 0.0]),
    ],
)
def test_what_answers_earn_by_hand(name: str, shaped: list[float]) -> None:
    assert ALGORITHMS[name].shape(SCORES, GROUPS) == pytest.approx(shaped)


def test_the_order_of_rows_does_not_matter_to_groups() -> None:
    order = np.array([3, 0, 4, 2, 1])
    for algorithm in ALGORITHMS.values():
        assert algorithm.shape(SCORES[order], GROUPS[order]) == pytest.approx(algorithm.shape(SCORES, GROUPS)[order])


def test_the_score_comes_at_the_last_token_and_the_kl_at_every_one() -> None:
    rows = pa.table(
        {
            "response": pa.array([[7, 8], [9]], pa.list_(pa.int32())),
            "group": pa.array([0, 1], pa.int64()),
            "logprobs": pa.array([[-1.0, -2.0], [-0.5]], pa.list_(pa.float32())),
            "ref_logprobs": pa.array([[-1.5, -1.0], [-0.5]], pa.list_(pa.float32())),
            "score": pa.array([2.0, -5.0]),
        }
    )
    got = token_rewards(rows, AlgorithmConfig(kl_estimator="k1"), kl_coef=0.1)
    assert got == pytest.approx([-0.05, 0.1 + 2.0, -5.0])
    assert token_rewards(rows, AlgorithmConfig(kl_in="loss"), kl_coef=0.1) == pytest.approx([0.0, 2.0, -5.0])


def openrlhf_rewards(rows: pa.Table, shaped: np.ndarray) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    from openrlhf.models.utils import compute_reward

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
    return padded, compute_reward(torch.tensor(shaped.astype(np.float32)), 0.1, kl, mask), mask


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (1.0, 0.95), (0.9, 0.8)])
def test_ppo_equals_openrlhf(gamma: float, lam: float) -> None:
    from experience_maker import RemoteExperienceMaker

    rows = table()
    ours = with_advantages(rows, gamma=gamma, gae_lambda=lam, kl_coef=0.1, whiten_advantages=False)
    padded, reward, mask = openrlhf_rewards(rows, rows.column("score").to_numpy())
    advantages, returns = RemoteExperienceMaker.get_advantages_and_returns(
        None, padded["values"], reward, mask, gamma, lam
    )
    np.testing.assert_allclose(flat(ours, "advantages"), advantages[mask.bool()].numpy(), atol=1e-5)
    np.testing.assert_allclose(flat(ours, "returns"), returns[mask.bool()].numpy(), atol=1e-5)


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo", "reinforce_pp", "reinforce_pp_baseline"])
def test_the_others_equal_openrlhfs_cumulative_returns(name: str) -> None:
    from experience_maker import RemoteExperienceMaker

    rows = table(rows=12, samples=4).drop_columns(["values"])
    ours = with_advantages(rows, name=name, kl_coef=0.1, kl_in="reward", kl_estimator="k1", whiten_advantages=False)
    shaped = rows.column("score").to_numpy().reshape(3, 4)
    if name == "rloo":
        shaped = shaped - (shaped.sum(1, keepdims=True) - shaped) / 3
    elif name in ("dr_grpo", "reinforce_pp_baseline", "grpo"):
        deviation = shaped.std(1, ddof=1, keepdims=True) + 1e-9 if name == "grpo" else 1.0
        shaped = (shaped - shaped.mean(1, keepdims=True)) / deviation
    _, reward, mask = openrlhf_rewards(rows.append_column("values", rows.column("logprobs")), shaped.ravel())
    theirs = RemoteExperienceMaker.get_cumulative_returns(None, reward, mask, 1.0)
    np.testing.assert_allclose(flat(ours, "advantages"), theirs[mask.bool()].numpy(), atol=1e-5)
    assert "returns" not in ours.column_names


def test_whitened_advantages_have_mean_0_and_variance_1_where_they_teach_and_returns_stay() -> None:
    rows = table(rows=20)
    white = with_advantages(rows, drop_truncated=True)
    raw = with_advantages(rows, drop_truncated=True, whiten_advantages=False)
    teaching = flat(white, "advantages")[flat(white, "weights") > 0]
    assert 0 < len(teaching) < len(flat(white, "advantages"))
    assert teaching.mean() == pytest.approx(0.0, abs=1e-6)
    assert teaching.var() == pytest.approx(1.0, abs=1e-5)
    assert flat(white, "returns").tolist() == flat(raw, "returns").tolist()


@pytest.mark.parametrize("name", [*ALGORITHMS])
def test_if_all_answers_were_cut_off_no_token_has_weight_and_nothing_is_nan(name: str) -> None:
    rows = table(rows=8, samples=2)
    rows = rows.set_column(rows.schema.get_field_index("finished"), "finished", pa.array([False] * len(rows)))
    found = with_advantages(rows, name=name, drop_truncated=True)
    assert not flat(found, "weights").any()
    assert not trained_rows(found).any()
    assert np.isfinite(flat(found, "advantages")).all()
    assert trained_rows(with_advantages(rows, name=name)).all()


def test_weights_by_hand() -> None:
    rows = pa.table(
        {
            "response": pa.array([[1], [1, 2, 3], [1, 2], [1, 2]], pa.list_(pa.int32())),
            "finished": pa.array([True, True, False, True]),
        }
    )

    def weights(**settings: Any) -> list[list[float]]:
        return add_weights(rows, AlgorithmConfig(minibatches=2, **settings), longest=5).column("weights").to_pylist()

    near = lambda expected: [pytest.approx(row) for row in expected]  # noqa: E731
    assert weights() == near([[0.25], [0.25] * 3, [0.25] * 2, [0.25] * 2])
    assert weights(loss_aggregation="sequence_mean") == near([[0.5], [1 / 6] * 3, [0.25] * 2, [0.25] * 2])
    assert weights(loss_aggregation="constant") == near([[0.1], [0.1] * 3, [0.1] * 2, [0.1] * 2])
    assert weights(drop_truncated=True) == near([[0.25], [0.25] * 3, [0.0] * 2, [0.5] * 2])


def test_explained_variance_of_a_perfect_and_of_a_blind_critic() -> None:
    column = pa.array([[1.0, 2.0], [4.0]], pa.list_(pa.float32()))
    zeros = pa.array([[0.0, 0.0], [0.0]], pa.list_(pa.float32()))
    assert explained_variance(pa.table({"returns": column, "values": column})) == 1.0
    assert explained_variance(pa.table({"returns": column, "values": zeros})) == 0.0
