from __future__ import annotations

import json

from reporting.areas import counted, draw_histogram, draw_stack
from reporting.curves import Series


def series(*values: float | None, name: str) -> Series:
    return Series(name, list(range(1, len(values) + 1)), list(values))


def test_phases_are_stacked():
    learn, publish = series(1.0, 3.0, name="learn"), Series("publish", [2], [1.0])
    chart = draw_stack("Seconds", [learn, publish], [1, 2], "s")
    assert [mark.area for mark in chart.marks] == [
        "M0 1000V761.9H500V285.7H1000V1000H500V1000H0Z",  # the axis goes from 0 to 4.2 seconds
        "M0 761.9V761.9H500V47.6H1000V285.7H500V761.9H0Z",
    ]
    assert [mark.value for mark in chart.marks] == ["2 s, 80%", "0.5 s, 20%"]
    assert json.loads(chart.hover)["rows"] == [["1 s", "0 s"], ["3 s", "1 s"]]


def test_phases_of_many_steps_are_means_of_several():
    chart = draw_stack("Seconds", [series(*range(1000), name="learn")], range(1, 1001), "s")
    hover = json.loads(chart.hover)
    assert len(hover["rows"]) == 200
    assert (hover["heads"][0], hover["rows"][0]) == ("steps 1 to 5", ["2 s"])
    assert chart.note.endswith("a bar is the mean of 5 steps")
    assert (99.9, "1,000") not in chart.x_ticks
    assert chart.x_ticks[0] == (19.75, "200")


def test_a_histogram_shows_shares_of_each_group():
    assert counted([0.0, 1.0, 1.5, 2.0], [0.0, 1.0, 2.0]) == [1, 3]
    chart = draw_histogram("Tokens", "", {"step 1": [1.0, 1.0, 3.0, 3.5], "step 9": []}, [0.0, 2.0, 4.0])
    assert chart.marks[0].area == "M0 1000V47.6H500V47.6H1000V1000H500V1000H0Z"  # both bins hold half
    assert [mark.value for mark in chart.marks] == ["mean 2.125", "none"]
    assert json.loads(chart.hover)["rows"] == [["2 of 4", "0 of 0"], ["2 of 4", "0 of 0"]]
