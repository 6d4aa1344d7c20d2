"""What an answer earns: the sources' rewards mixed, then shaped. And the KL's weight, where it is steered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from actors.modeling.rows import lengths
from actors.table import extended
from trainers.config.rlhf import AlgorithmConfig
from trainers.rlhf.algorithms import Floats


def add_reward(table: pa.Table, weights: Mapping[str, float]) -> pa.Table:
    """Adds `reward`, the weighted sum of the columns `reward_NAME`."""
    total = np.zeros(len(table))
    for name, weight in weights.items():
        total += weight * table.column(f"reward_{name}").to_numpy().astype(np.float64)
    return extended(table, {"reward": pa.array(total.astype(np.float32))}, "driver")


class RewardShaper:
    """From `reward` to `score`, what the algorithm works with. Remembers the rewards' spread from step to step."""

    def __init__(self, algorithm: AlgorithmConfig, max_new_tokens: int) -> None:
        self._algorithm, self._longest = algorithm, max_new_tokens
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def add_score(self, table: pa.Table) -> pa.Table:
        """Adds `score`: the reward clipped, divided by its running deviation, less what the answer's length costs."""
        algorithm = self._algorithm
        rewards = table.column("reward").to_numpy().astype(np.float64)
        rewards = rewards.clip(-algorithm.reward_clip, algorithm.reward_clip)
        if algorithm.normalize_rewards:
            rewards = rewards / self._deviation(rewards)
        score = pa.array(rewards - self._cost(lengths(table, "response")))
        return extended(table, {"score": score}, "driver")

    def _cost(self, tokens: np.ndarray) -> Floats:
        """The length penalty, and DAPO's soft overlong punishment (Yu et al. 2025, eq. 13)."""
        algorithm = self._algorithm
        cost = algorithm.length_penalty * tokens.astype(np.float64)
        if algorithm.overlong_buffer:
            over = tokens - (self._longest - algorithm.overlong_buffer)
            cost += algorithm.overlong_penalty * (over / algorithm.overlong_buffer).clip(0.0, 1.0)
        return cost

    def _deviation(self, rewards: Floats) -> float:
        """Standard deviation of all rewards so far, these included (parallel form, Chan et al. 1983)."""
        count = self.count + len(rewards)
        shift = rewards.mean() - self.mean
        self.squares += ((rewards - rewards.mean()) ** 2).sum() + shift**2 * self.count * len(rewards) / count
        self.mean += shift * len(rewards) / count
        self.count = count
        return max(float(np.sqrt(self.squares / count)), 1e-4)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps; `restore` takes it."""
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes what `state` returned."""
        self.count, self.mean, self.squares = state["count"], state["mean"], state["squares"]


class KLController:
    """The KL's weight: fixed, or steered so that the KL an answer comes to a target (Ziegler et al. 2019, section 2.2)."""

    def __init__(self, algorithm: AlgorithmConfig) -> None:
        self._algorithm = algorithm
        self.coef = algorithm.kl_coef

    def observe(self, kl: float, answers: int) -> None:
        """Moves the weight after a step of `answers` answers with a mean KL of `kl` nats."""
        target = self._algorithm.kl_target
        if target is not None:
            error = min(max(kl / target - 1.0, -0.2), 0.2)
            self.coef *= 1.0 + error * answers / self._algorithm.kl_horizon

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps; `restore` takes it."""
        return {"coef": self.coef}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes what `state` returned."""
        self.coef = state["coef"]
