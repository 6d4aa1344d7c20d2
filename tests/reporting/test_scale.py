from __future__ import annotations

import math

import pytest

from reporting.scale import Scale, nice_step, scale_of


def test_a_linear_axis():
    scale = Scale(0.0, 10.0)
    assert [scale.at(value) for value in (0, 2.5, 10)] == [0, 0.25, 1]
    assert scale.ticks() == [0.0, 2.5, 5.0, 7.5, 10.0]
    assert Scale(-0.3, 0.3).ticks() == [-0.2, 0.0, 0.2]


def test_a_logarithmic_axis():
    scale = Scale(0.01, 100.0, log=True)
    assert [scale.at(value) for value in (0.01, 1, 100)] == [0, 0.5, 1]
    assert scale.ticks() == [0.01, 0.1, 1, 10, 100]
    assert Scale(0.9, 30.0, log=True).ticks() == [1, 2, 5, 10, 20]
    assert len(Scale(1e-12, 1e12, log=True).ticks()) <= 6


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 10.0], (0.0, 10.45)),
        ([9.0, 10.0], (8.95, 10.05)),
        ([-1.0, 1.0], (-1.1, 1.1)),
        ([4.0], (2.0, 6.0)),
        ([0.0, 0.0], (0.0, 1.0)),
        ([], (0.0, 1.05)),
    ],
)
def test_an_axis_shows_all_with_a_little_room(values, expected):
    scale = scale_of(values)
    assert (scale.low, scale.high) == pytest.approx(expected)


def test_an_axis_is_logarithmic_only_where_that_shows_more():
    assert scale_of([1.0, 30.0], log_from=20).log
    assert not scale_of([1.0, 10.0], log_from=20).log
    assert not scale_of([0.0, 30.0], log_from=20).log
    assert not scale_of([1.0, 1e9]).log
    extreme = scale_of([1e-100, 1e100], log_from=20)
    assert all(map(math.isfinite, [extreme.low, extreme.high, *extreme.ticks()]))


def test_an_axis_of_shares_ends_at_one():
    assert scale_of([1.0, 1.0], share=True) == Scale(0.0, 1.0)
    assert scale_of([0.5, 1.0], share=True).high == 1.0
    assert scale_of([0.0, 0.02], share=True) == Scale(0.0, 0.021)
    assert scale_of([0.5, 1.5], share=True).high > 1.5


@pytest.mark.parametrize(("rough", "step"), [(0.7, 1.0), (2.2, 2.5), (3.0, 5.0), (0.02, 0.02), (60.0, 100.0)])
def test_steps_are_round(rough, step):
    assert nice_step(rough) == pytest.approx(step)
