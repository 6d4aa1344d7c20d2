"""Bootstrap confidence intervals, which estimate how much a metric varies over samples of the same kind of items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95

Interval = list[float]
"""Lower and upper bound."""


def mean_interval(values: Sequence[float], seed: int = 0) -> Interval:
    """Returns the 95% percentile interval of the mean of `values`, by resampling with replacement.

    Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13. Deterministic for a given seed.
    """
    return group_interval({"": values}, seed)


def group_interval(groups: Mapping[str, Sequence[float]], seed: int = 0) -> Interval:
    """Returns the 95% interval of the mean of the groups' means (macro average), resampling items within each group."""
    rng = np.random.default_rng(seed)
    means_GR = []
    for values in groups.values():
        values_N = np.asarray(values, dtype=float)
        # The counts of each item in a resample are multinomial, so one draw per resample replaces N index draws.
        counts_RN = rng.multinomial(len(values_N), np.full(len(values_N), 1 / len(values_N)), size=RESAMPLES)
        means_GR.append(counts_RN @ values_N / len(values_N))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(np.mean(means_GR, axis=0), [tail, 1 - tail])
    return [float(low), float(high)]
