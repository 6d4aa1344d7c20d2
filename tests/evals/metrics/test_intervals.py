from __future__ import annotations

import math

import pytest
from scipy.stats import bootstrap

from evals.metrics.intervals import group_interval, mean_interval


def test_equals_scipys_percentile_bootstrap() -> None:
    values = [1.0] * 120 + [0.0] * 80
    low, high = mean_interval(values)
    theirs = bootstrap(
        (values,), lambda v, axis: v.mean(axis), method="percentile", n_resamples=2000, rng=0
    ).confidence_interval
    assert low == pytest.approx(theirs.low, abs=0.01)
    assert high == pytest.approx(theirs.high, abs=0.01)
    half = 1.96 * math.sqrt(0.6 * 0.4 / 200)  # the normal approximation
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


def test_is_repeatable_and_has_no_width_where_nothing_varies() -> None:
    assert mean_interval([0.0, 1.0, 1.0]) == mean_interval([0.0, 1.0, 1.0])
    uneven = [n**0.5 for n in range(30)]
    assert mean_interval(uneven, seed=1) != mean_interval(uneven, seed=2)
    assert mean_interval([0.5, 0.5]) == [0.5, 0.5]


def test_a_macro_average_weighs_groups_alike() -> None:
    low, high = group_interval({"large": [1.0] * 500, "small": [0.0] * 5})
    assert (low, high) == (0.5, 0.5)
    low, high = group_interval({"large": [1.0] * 500, "small": [0.0, 1.0] * 4})
    assert 0.5 < low < 0.75 < high < 1.0
