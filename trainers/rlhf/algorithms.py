"""The algorithms: how each makes advantages of a step's rewards. One function each, and the table of them.

Shapes: R rows of the step, N response tokens of all rows end to end. An answer's group is the rows of its prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainers.config.rlhf import AlgorithmConfig

Floats = NDArray[np.float64]
Shape = Callable[[Floats, NDArray[np.int64]], Floats]


def plain(scores: Floats, groups: NDArray[np.int64]) -> Floats:
    """The scores (R,) as they are: REINFORCE++ (Hu 2025) whitens the advantages of the whole batch instead."""
    return scores


def grpo(scores: Floats, groups: NDArray[np.int64]) -> Floats:
    """(score - mean) / standard deviation within the group (Shao et al. 2024, section 4.1.2)."""
    return _over_groups(scores, groups, lambda of_group: (of_group - of_group.mean()) / (of_group.std(ddof=1) + 1e-9))


def centred(scores: Floats, groups: NDArray[np.int64]) -> Floats:
    """score - mean of the group: Dr. GRPO (Liu et al. 2025, section 3.2) and REINFORCE++-baseline (Hu 2025)."""
    return _over_groups(scores, groups, lambda of_group: of_group - of_group.mean())


def rloo(scores: Floats, groups: NDArray[np.int64]) -> Floats:
    """score - mean of the group's other scores (Ahmadian et al. 2024, eq. 8)."""

    def against_others(of_group: Floats) -> Floats:
        return of_group - (of_group.sum() - of_group) / (len(of_group) - 1)

    return _over_groups(scores, groups, against_others)


def generalized_advantages(rewards: Floats, values: Floats, gamma: float, lam: float) -> Floats:
    """Advantages of one row's tokens, (A,) (Schulman et al. 2016, eq. 16): sum over l of (gamma lam)^l delta_{t+l}.

    delta_t = r_t + gamma V_{t+1} - V_t; the value after the last token is 0, because the answer ends there.
    """
    deltas = rewards + gamma * np.append(values[1:], 0.0) - values
    return _discounted(deltas, gamma * lam)


def returns_to_go(rewards: Floats, gamma: float) -> Floats:
    """Of one row's tokens, (A,): the sum of what is still to come, each token later worth gamma times as much."""
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
    """What tells one algorithm from another; everything else is shared."""

    shape: Shape
    """Scores (R,) and groups (R,) to what an answer's last token earns, (R,)."""
    row_advantages: Callable[[Floats, Floats | None, AlgorithmConfig], Floats]
    """A row's token rewards (A,), its values (A,) or None, and the settings, to its advantages (A,)."""


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
