from __future__ import annotations

import json

import pytest

from reporting.curves import Series, draw_curves, smoothed, thinned


def series(*values: float | None, name: str = "reward") -> Series:
    return Series(name, list(range(1, len(values) + 1)), list(values))


def test_a_curve_by_hand():
    chart = draw_curves("Reward", [series(0.0, 5.0, 10.0)])
    (mark,) = chart.marks
    assert mark.line == "M0 1000L500 523.8L1000 47.6"  # the axis goes from 0 to 10.5
    assert mark.dots == "M0 1000h0M500 523.8h0M1000 47.6h0"
    assert mark.value == "10"
    assert chart.y_ticks == [(100.0, "0"), (52.38, "5"), (4.76, "10")]
    assert chart.x_ticks == [(0.0, "1"), (50.0, "2"), (100.0, "3")]
    assert json.loads(chart.hover) == {
        "at": [0.0, 0.5, 1.0],
        "heads": ["step 1", "step 2", "step 3"],
        "names": ["reward"],
        "colors": [0],
        "rows": [["0"], ["5"], ["10"]],
    }
    assert chart.label == "Reward: reward from 0 to 10 over 3 steps"


def test_curves_that_were_logged_at_different_steps_share_the_axis():
    rare = Series("heldout_loss", [3], [2.0])
    chart = draw_curves("Reward", [series(4.0, 3.0, 2.0, 1.0, 0.0, name="loss"), rare])
    assert chart.marks[1].dots == "M500 523.8h0"
    assert json.loads(chart.hover)["rows"] == [["4", ""], ["3", ""], ["2", "2"], ["1", ""], ["0", ""]]


def test_a_metric_that_was_never_finite_has_a_chart_without_a_line():
    (mark,) = draw_curves("Reward", [series(None, None)]).marks
    assert (mark.line, mark.dots, mark.value, mark.gaps) == ("", "", "not finite", [(0.0, 100.0)])


def test_smoothing_keeps_straight_lines_and_calms_the_rest():
    line = [2.0 * n for n in range(50)]
    assert [smoothed(line, place) for place in range(50)] == pytest.approx(line)
    zigzag = [(-1.0) ** n for n in range(50)]
    assert abs(smoothed(zigzag, 25)) < 0.1
    assert smoothed([5.0, 1.0, 5.0], 1) == 1.0  # few points are joined as they are
    assert smoothed([None if n == 3 else 1.0 for n in range(50)], 3) is None
    assert min(smoothed([100.0] + [0.0] * 49, place) for place in range(50)) == 0.0  # never beyond the values


def test_of_many_points_each_stretch_keeps_its_lowest_and_highest():
    values = [float(n % 7) for n in range(10_000)]
    values[5_003], values[5_500] = 99.0, -99.0
    places = thinned(series(*values))
    assert len(places) <= 802
    assert {0, 5_003, 5_500, 9_999} <= set(places)
    assert thinned(series(1.0, 2.0)) == [0, 1]
