"""Advantage estimators: one function per algorithm, and the table `ALGORITHMS`.

Shapes: R rows of the step, A response tokens of one row. A response's group is the set of rows with the same prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainers.config.algorithm import AlgorithmConfig

Floats = NDArray[np.float64]
Shape = Callable[[Floats, NDArray[np.int64]], Floats]


def plain(scores: Floats, groups: NDArray[np.int64]) -> Floats:
    """Returns the scores (R,) unchanged: REINFORCE++ (Hu 2025) whitens the advantages of the whole batch instead."""
    return scores


def grpo(scores: Floats, groups: NDArray[np.int64]) -> Floats:
    """Returns (score - mean) / standard deviation within the group, (R,) (Shao et al. 2024, section 4.1.2)."""
    return _over_groups(scores, groups, lambda of_group: (of_group - of_group.mean()) / (of_group.std(ddof=1) + 1e-9))


def centred(scores: Floats, groups: NDArray[np.int64]) -> Floats:
    """Returns score - mean of the group, (R,).

    Used by Dr. GRPO (Liu et al. 2025, section 3.2) and REINFORCE++-baseline (Hu 2025).
    """
    return _over_groups(scores, groups, lambda of_group: of_group - of_group.mean())


def rloo(scores: Floats, groups: NDArray[np.int64]) -> Floats:
    """Returns score - mean of the group's other scores, (R,) (Ahmadian et al. 2024, eq. 8)."""

    def against_others(of_group: Floats) -> Floats:
        return of_group - (of_group.sum() - of_group) / (len(of_group) - 1)

    return _over_groups(scores, groups, against_others)


def generalized_advantages(rewards: Floats, values: Floats, gamma: float, lam: float) -> Floats:
    """Computes generalized advantage estimates (GAE) of one row (Schulman et al. 2016, eq. 16).

    A_t = sum over l of (gamma lam)^l delta_{t+l}, with delta_t = r_t + gamma V_{t+1} - V_t. The value after the last
    token is 0, because the response ends there.

    Args:
        rewards: rewards of the row's response tokens, (A,).
        values: the critic's values at these tokens, (A,).

    Returns:
        The advantages, (A,).
    """
    deltas = rewards + gamma * np.append(values[1:], 0.0) - values
    return _discounted(deltas, gamma * lam)


def returns_to_go(rewards: Floats, gamma: float) -> Floats:
    """Returns the discounted returns of one row's tokens, (A,): sum over l of gamma^l r_{t+l}, for rewards (A,)."""
    return _discounted(rewards, gamma)


def _discounted(terms: Floats, factor: float) -> Floats:
    sums = np.zeros_like(terms)
    carried = 0.0
    for t in reversed(range(len(terms))):
        carried = terms[t] + factor * carried
        sums[t] = carried
    return sums


def _over_groups(scores: Floats, groups: NDArray[np.int64], shape: Callable[[Floats], Floats]) -> Floats:
    shaped = np.empty_like(scores)
    for group in np.unique(groups):
        members = groups == group
        shaped[members] = shape(scores[members])
    return shaped


@dataclass(frozen=True)
class Algorithm:
    """The two functions in which the algorithms differ; everything else is shared."""

    shape: Shape
    """Maps scores (R,) and groups (R,) to the rewards at the responses' last tokens, (R,)."""
    row_advantages: Callable[[Floats, Floats | None, AlgorithmConfig], Floats]
    """Maps a row's token rewards (A,), its values (A,) or None, and the settings to its advantages (A,)."""


def _without_critic(shape: Shape) -> Algorithm:
    return Algorithm(shape, lambda rewards, _, settings: returns_to_go(rewards, settings.gamma))


def _with_critic(rewards: Floats, values: Floats | None, settings: AlgorithmConfig) -> Floats:
    assert values is not None
    return generalized_advantages(rewards, values, settings.gamma, settings.gae_lambda)


ALGORITHMS: dict[str, Algorithm] = {
    "ppo": Algorithm(plain, _with_critic),
    "grpo": _without_critic(grpo),
    "dr_grpo": _without_critic(centred),
    "rloo": _without_critic(rloo),
    "reinforce_pp": _without_critic(plain),
    "reinforce_pp_baseline": _without_critic(centred),
}
