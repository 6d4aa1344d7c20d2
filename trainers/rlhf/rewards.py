"""Rewards of responses, as the weighted sum of their sources; reward shaping; and the KL controller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from actors.modeling.rows import lengths
from actors.table import extended
from trainers.config.algorithm import AlgorithmConfig
from trainers.rlhf.algorithms import Floats


def add_reward(table: pa.Table, weights: Mapping[str, float]) -> pa.Table:
    """Adds the column `reward`, the sum of the columns `reward_NAME`, weighted by `weights`."""
    total = np.zeros(len(table))
    for name, weight in weights.items():
        total += weight * table.column(f"reward_{name}").to_numpy().astype(np.float64)
    return extended(table, {"reward": pa.array(total.astype(np.float32))}, "driver")


class RewardShaper:
    """Computes `score`, the algorithm's input, from `reward`. Keeps running statistics of the rewards across steps."""

    def __init__(self, algorithm: AlgorithmConfig, max_new_tokens: int) -> None:
        self._algorithm, self._longest = algorithm, max_new_tokens
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def add_score(self, table: pa.Table) -> pa.Table:
        """Adds `score`: the clipped reward minus the length penalties.

        With `normalize_rewards`, the clipped reward is divided by its running standard deviation first.
        """
        algorithm = self._algorithm
        rewards = table.column("reward").to_numpy().astype(np.float64)
        rewards = rewards.clip(-algorithm.reward_clip, algorithm.reward_clip)
        if algorithm.normalize_rewards:
            rewards = rewards / self._deviation(rewards)
        score = pa.array(rewards - self._cost(lengths(table, "response")))
        return extended(table, {"score": score}, "driver")

    def _cost(self, tokens: np.ndarray) -> Floats:
        """Returns the length penalties, (R,), of responses of lengths `tokens`, (R,).

        They are a linear penalty plus DAPO's soft overlong punishment (Yu et al. 2025, eq. 13).
        """
        algorithm = self._algorithm
        cost = algorithm.length_penalty * tokens.astype(np.float64)
        if algorithm.overlong_buffer:
            over = tokens - (self._longest - algorithm.overlong_buffer)
            cost += algorithm.overlong_penalty * (over / algorithm.overlong_buffer).clip(0.0, 1.0)
        return cost

    def _deviation(self, rewards: Floats) -> float:
        """Adds `rewards`, (R,), to the running statistics; returns the standard deviation of all rewards so far.

        Uses the parallel form of Chan et al. 1983. The result is at least 1e-4.
        """
        count = self.count + len(rewards)
        shift = rewards.mean() - self.mean
        self.squares += ((rewards - rewards.mean()) ** 2).sum() + shift**2 * self.count * len(rewards) / count
        self.mean += shift * len(rewards) / count
        self.count = count
        return max(float(np.sqrt(self.squares / count)), 1e-4)

    def state(self) -> dict[str, Any]:
        """Returns the state that a checkpoint saves."""
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores a state that `state` returned."""
        self.count, self.mean, self.squares = state["count"], state["mean"], state["squares"]


class KLController:
    """The KL coefficient: fixed, or adapted so that the KL per response approaches a target.

    The adaptive controller is that of Ziegler et al. 2019, section 2.2.
    """

    def __init__(self, algorithm: AlgorithmConfig) -> None:
        self._algorithm = algorithm
        self.coef = algorithm.kl_coef

    def observe(self, kl: float, responses: int) -> None:
        """Updates the coefficient after a step of `responses` responses with a mean KL of `kl` nats per response."""
        target = self._algorithm.kl_target
        if target is not None:
            error = min(max(kl / target - 1.0, -0.2), 0.2)
            self.coef *= 1.0 + error * responses / self._algorithm.kl_horizon

    def state(self) -> dict[str, Any]:
        """Returns the state that a checkpoint saves."""
        return {"coef": self.coef}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores a state that `state` returned."""
        self.coef = state["coef"]
