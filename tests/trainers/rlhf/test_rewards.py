"""What answers earn, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from trainers.config.algorithm import AlgorithmConfig
from trainers.rlhf.rewards import KLController, RewardShaper, add_reward


def table(rewards: list[float], tokens: list[int]) -> pa.Table:
    responses = pa.array([list(range(n)) for n in tokens], pa.list_(pa.int32()))
    return pa.table({"response": responses, "reward": pa.array(rewards, pa.float32())})


def scores(shaper: RewardShaper, rewards: list[float], tokens: list[int]) -> list[float]:
    return shaper.add_score(table(rewards, tokens)).column("score").to_pylist()


def shaper(**settings: Any) -> RewardShaper:
    return RewardShaper(AlgorithmConfig(**settings), max_new_tokens=10)


def test_sources_are_mixed_by_weight() -> None:
    rows = pa.table({"reward_model": pa.array([1.0, 2.0]), "reward_exact": pa.array([0.0, 1.0])})
    mixed = add_reward(rows, {"model": 0.5, "exact": 2.0})
    assert mixed.column("reward").to_pylist() == [0.5, 3.0]


def test_clipped_and_less_by_length() -> None:
    assert scores(shaper(reward_clip=2.0, length_penalty=0.1), [9.0, -9.0, 1.0], [1, 2, 10]) == pytest.approx(
        [1.9, -2.2, 0.0]
    )
    # The buffer is the last 4 of 10 tokens: 6 cost nothing, 8 half, 10 all.
    soft = shaper(overlong_buffer=4, overlong_penalty=2.0)
    assert scores(soft, [0.0, 0.0, 0.0], [6, 8, 10]) == pytest.approx([0.0, -1.0, -2.0])


def test_the_running_deviation_is_that_of_all_rewards_and_survives_a_checkpoint() -> None:
    draws = [np.random.default_rng(seed).normal(3.0, 2.0, 7).astype(np.float32) for seed in range(3)]
    first = shaper(normalize_rewards=True, reward_clip=100.0)
    for index, draw in enumerate(draws):
        got = scores(first, draw.tolist(), [1] * 7)
        assert got == pytest.approx((draw / np.concatenate(draws[: index + 1]).std()).tolist(), rel=1e-5)
        if index == 1:
            second = shaper(normalize_rewards=True, reward_clip=100.0)
            second.restore(first.state())
    assert scores(second, draws[2].tolist(), [1] * 7) == got


def test_the_kl_weight_is_steered_by_at_most_a_fifth_a_horizon() -> None:
    fixed = KLController(AlgorithmConfig(kl_coef=0.1))
    fixed.observe(kl=100.0, responses=500)
    assert fixed.coef == 0.1
    steered = KLController(AlgorithmConfig(kl_coef=0.1, kl_target=2.0, kl_horizon=1000))
    steered.observe(kl=2.2, responses=100)
    assert steered.coef == pytest.approx(0.1 * (1 + 0.1 * 0.1))
    steered.observe(kl=50.0, responses=1000)
    assert steered.coef == pytest.approx(0.1 * 1.01 * 1.2)
