"""Charts of metrics, as SVG geometry: paths in a square of 1000 by 1000, y downward, which the page stretches.

Text is not part of the drawing, because stretching would distort it: the page places tick labels by percentage.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from trainers.reporting.panels import PHASE, Panel
from trainers.reporting.record import Series
from trainers.reporting.scale import Scale, figure, scale_of

SIDE = 1000
MOST_POINTS = 800
"""Most points drawn per curve; of a longer series, each segment keeps its lowest and its highest."""

MOST_BARS = 200
FEW_POINTS = 10
"""Up to this many points, a curve connects the raw values without smoothing, which would hide them."""

SPARSE_POINTS = 100
"""Up to this many points, there is room to draw larger ones."""

LONGEST_REACH = 100

Tick = tuple[float, str]
"""Position along the axis in percent, and the label."""


@dataclass(frozen=True)
class Mark:
    """One metric in a chart, as SVG path data: raw values as `dots` and the smoothed curve as `line`, or an `area`.

    Attributes:
        color: index of the color, 0 to `MOST_CURVES` - 1.
        value: the value in the legend.
        sparse: whether there are few dots.
        gaps: left end and width, in percent, of intervals without a finite value.
    """

    name: str
    color: int
    value: str
    dots: str = ""
    line: str = ""
    area: str = ""
    sparse: bool = False
    gaps: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Chart:
    """The data that the page needs to draw one chart.

    Attributes:
        kind: `curves`, `stack`, or `histogram`.
        x_title: title of the x axis.
        hover: JSON of `{"at": [0..1], "heads": [text], "names": [text], "rows": [[text]]}`, one row per position.
    """

    kind: str
    title: str
    note: str
    marks: list[Mark]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    hover: str
    label: str
    x_title: str = "step"
    log: bool = False


def draw(panel: Panel, members: Sequence[Series]) -> Chart:
    """Draws a panel's metrics, each as points and a smoothed line.

    Series without a finite value are not an error: their chart has axes and no line.
    """
    kept = [thinned(series) for series in members]
    x = step_scale(sorted({step for series in members for step in series.steps}))
    y = scale_of([value for series in members for value in series.finite()], log_from=panel.log_from, share=panel.share)
    marks = [
        _mark(series, places, index, x, y, panel.share)
        for index, (series, places) in enumerate(zip(members, kept, strict=True))
    ]
    drawn = [
        {series.steps[place]: series.values[place] for place in places}
        for series, places in zip(members, kept, strict=True)
    ]
    steps = sorted({step for values in drawn for step in values})
    rows = [[figure(one[step], share=panel.share) if step in one else "" for one in drawn] for step in steps]
    return Chart(
        kind="curves",
        title=panel.title,
        note=panel.note,
        marks=marks,
        x_ticks=step_ticks(x),
        y_ticks=value_ticks(y, share=panel.share),
        hover=hover_of([x.at(step) for step in steps], [f"step {step:,}" for step in steps], marks, rows),
        label=f"{panel.title}: " + "; ".join(_words(series, panel.share) for series in members),
        log=y.log,
    )


def draw_phases(series: Sequence[Series], steps: Sequence[int]) -> Chart:
    """Draws the seconds of each phase as stacked bars, one per step.

    If there are many steps, a bar is the mean of several. A phase that a step did not log counts as 0 seconds.
    """
    by_step = [{step: value or 0.0 for step, value in zip(one.steps, one.values, strict=True)} for one in series]
    width = math.ceil(len(steps) / MOST_BARS)
    bars = [steps[start : start + width] for start in range(0, len(steps), width)]
    heights = [[sum(values.get(step, 0.0) for step in bar) / len(bar) for values in by_step] for bar in bars]
    totals = [sum(values.get(step, 0.0) for step in steps) for values in by_step]
    x, y = Scale(0.0, float(len(bars))), scale_of([0.0, *map(sum, heights)])
    marks, below = [], [0.0] * len(bars)
    for index, one in enumerate(series):
        above = [floor + bar[index] for floor, bar in zip(below, heights, strict=True)]
        share = totals[index] / (sum(totals) or 1.0)
        value = f"{figure(totals[index] / len(steps))} s, {figure(share, share=True)}"
        marks.append(Mark(one.name.removeprefix(PHASE), index % 8, value, area=_steps_path(x, y, below, above)))
        below = above
    heads = [f"step {bar[0]:,}" if len(bar) == 1 else f"steps {bar[0]:,} to {bar[-1]:,}" for bar in bars]
    rows = [[f"{figure(value)} s" for value in bar] for bar in heights]
    starts = [bar[0] for bar in bars]
    labeled = [tick for tick in step_scale(steps).ticks(5) if tick == int(tick) and steps[0] <= tick <= steps[-1]]
    return Chart(
        kind="stack",
        title="Seconds a step, by phase",
        note="mean and share of all steps below" + (f"; a bar is the mean of {width} steps" if width > 1 else ""),
        marks=marks,
        x_ticks=[(percent(x.at(bisect_right(starts, tick) - 0.5)), f"{tick:,.0f}") for tick in labeled],
        y_ticks=value_ticks(y),
        hover=hover_of([x.at(n + 0.5) for n in range(len(bars))], heads, marks, rows),
        label="seconds a step: " + "; ".join(f"{mark.name} {mark.value}" for mark in marks),
    )


def histogram(title: str, note: str, groups: dict[str, list[float]], edges: Sequence[float]) -> Chart:
    """Draws a histogram of several groups: the share of each group's values in each bin.

    Args:
        edges: the bins' edges, ascending and equally spaced.
    """
    x = Scale(edges[0], edges[-1])
    bins = len(edges) - 1
    counts = {name: counted(values, edges) for name, values in groups.items()}
    shares = {name: [count / (sum(row) or 1) for count in row] for name, row in counts.items()}
    y = scale_of([0.0, *(max(row) for row in shares.values())], share=True)
    bars = Scale(0.0, float(bins))
    marks = []
    for index, (name, row) in enumerate(shares.items()):
        values = groups[name]
        mean = f"mean {figure(sum(values) / len(values))}" if values else "none"
        marks.append(Mark(name, index, mean, area=_steps_path(bars, y, [0.0] * bins, row)))
    return Chart(
        kind="histogram",
        title=title,
        note=note,
        marks=marks,
        x_ticks=[(percent(x.at(tick)), figure(tick)) for tick in x.ticks(5)],
        y_ticks=value_ticks(y, share=True),
        hover=hover_of(
            [bars.at(n + 0.5) for n in range(bins)],
            [f"{figure(edges[n])} to {figure(edges[n + 1])}" for n in range(bins)],
            marks,
            [[f"{row[n]} of {sum(row)}" for row in counts.values()] for n in range(bins)],
        ),
        label=f"{title}: " + "; ".join(f"{mark.name}, {mark.value}" for mark in marks),
        x_title=title.lower(),
    )


def counted(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    """Counts the values in each half-open bin `[edge, next edge)`; the last bin is closed."""
    counts = [0] * (len(edges) - 1)
    for value in values:
        place = bisect_left(edges, value)
        exact = place < len(edges) and edges[place] == value
        counts[min(max(place if exact else place - 1, 0), len(counts) - 1)] += 1
    return counts


def sparkline(series: Series) -> str:
    """Returns the smoothed line alone, as SVG path data."""
    places = thinned(series)
    x, y = step_scale(series.steps), scale_of(series.finite())
    return _line(series, places, x, y)


def thinned(series: Series, most: int = MOST_POINTS) -> list[int]:
    """Returns the indices of the points to draw: all up to `most`, else the lowest and highest of each segment."""
    count = len(series.values)
    if count <= most:
        return list(range(count))
    width = math.ceil(2 * count / most)
    kept: set[int] = {0, count - 1}
    for start in range(0, count, width):
        stretch = range(start, min(start + width, count))
        known = [(value, place) for place in stretch if (value := series.values[place]) is not None]
        kept |= {min(known)[1], max(known)[1]} if known else {start}
    return sorted(kept)


def smoothed(values: Sequence[float | None], place: int) -> float | None:
    """Smooths the value at index `place` by locally weighted linear regression with tricube weights.

    Cleveland 1979, "Robust Locally Weighted Regression and Smoothing Scatterplots", without the robust steps. Unlike a
    moving average, it is not biased at the ends. The result is clamped to the range of the values used. None if the
    value itself is not finite, so that the line shows where a run broke.
    """
    here = values[place]
    reach = 0 if len(values) <= FEW_POINTS else min(max(round(len(values) / 25), 2), LONGEST_REACH)
    if here is None or reach == 0:
        return here
    near = [
        (offset, value, (1 - abs(offset / (reach + 1)) ** 3) ** 3)
        for offset in range(-min(reach, place), min(reach, len(values) - 1 - place) + 1)
        if (value := values[place + offset]) is not None
    ]
    total = sum(weight for _, _, weight in near)
    center = sum(weight * offset for offset, _, weight in near) / total
    mean = sum(weight * value for _, value, weight in near) / total
    spread = sum(weight * (offset - center) ** 2 for offset, _, weight in near)
    tilt = sum(weight * (offset - center) * (value - mean) for offset, value, weight in near) / (spread or 1.0)
    known = [value for _, value, _ in near]
    return min(max(mean - tilt * center, min(known)), max(known))


def step_scale(steps: Sequence[int]) -> Scale:
    """Returns the scale of the step axis; a single step lies in its middle."""
    first, last = steps[0], steps[-1]
    return Scale(first, last) if first < last else Scale(first - 1, first + 1)


def step_ticks(x: Scale) -> list[Tick]:
    """Returns the ticks of the step axis, at whole steps."""
    return [(percent(x.at(tick)), f"{tick:,.0f}") for tick in x.ticks(5) if tick == int(tick)]


def value_ticks(y: Scale, *, share: bool = False) -> list[Tick]:
    """Returns the ticks of the y axis; percentages are from the top."""
    return [(percent(1 - y.at(tick)), figure(tick, share=share)) for tick in y.ticks()]


def hover_of(at: Sequence[float], heads: Sequence[str], marks: Sequence[Mark], rows: Sequence[list[str]]) -> str:
    """Returns the JSON of `Chart.hover`."""
    names = [mark.name for mark in marks]
    return json.dumps({"at": [round(x, 4) for x in at], "heads": heads, "names": names, "rows": rows})


def percent(part: float) -> float:
    """Returns a fraction as a percentage, rounded to two decimals."""
    return round(100 * part, 2)


def _mark(series: Series, places: Sequence[int], color: int, x: Scale, y: Scale, share: bool) -> Mark:
    dots = "".join(
        f"M{_x(x, series.steps[place])} {_y(y, value)}h0"
        for place in places
        if (value := series.values[place]) is not None
    )
    return Mark(
        series.name,
        color,
        figure(series.values[-1], share=share),
        dots=dots,
        line=_line(series, places, x, y),
        sparse=len(series.values) <= SPARSE_POINTS,
        gaps=_gaps(series, x),
    )


def _line(series: Series, places: Sequence[int], x: Scale, y: Scale) -> str:
    path, pen = "", "M"
    for place in places:
        value = smoothed(series.values, place)
        if value is None:
            pen = "M"
            continue
        path += f"{pen}{_x(x, series.steps[place])} {_y(y, value)}"
        pen = "L"
    return path


def _gaps(series: Series, x: Scale) -> list[tuple[float, float]]:
    """Returns the intervals of values that are not finite, extended to the neighboring points; see `Mark.gaps`."""
    gaps: list[tuple[int, int]] = []
    for place, value in enumerate(series.values):
        if value is not None:
            continue
        before, after = series.steps[max(place - 1, 0)], series.steps[min(place + 1, len(series.steps) - 1)]
        if gaps and before <= gaps[-1][1]:
            before = gaps.pop()[0]
        gaps.append((before, after))
    whole = [(percent(x.at(start)), percent(x.at(end))) for start, end in gaps]
    return [(start, round(max(end - start, 0.5), 2)) for start, end in whole]


def _steps_path(x: Scale, y: Scale, below: Sequence[float], above: Sequence[float]) -> str:
    """Returns the outline of adjacent bars: along their tops, and back along their bottoms."""
    there = "".join(f"V{_y(y, top)}H{_x(x, n + 1)}" for n, top in enumerate(above))
    back = "".join(f"V{_y(y, foot)}H{_x(x, n)}" for n, foot in reversed(list(enumerate(below))))
    return f"M{_x(x, 0)} {_y(y, below[0])}{there}{back}Z"


def _words(series: Series, share: bool) -> str:
    known = series.finite()
    if not known:
        return f"{series.name} has no finite value"
    ends = f"from {figure(known[0], share=share)} to {figure(known[-1], share=share)}"
    return f"{series.name} {ends} over {len(series.steps):,} steps"


def _x(scale: Scale, value: float) -> str:
    return f"{SIDE * scale.at(value):.1f}".removesuffix(".0")


def _y(scale: Scale, value: float) -> str:
    return f"{SIDE * (1 - scale.at(value)):.1f}".removesuffix(".0")
