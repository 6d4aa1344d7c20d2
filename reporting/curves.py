"""Charts of curves: values over steps, as logged and smoothed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from reporting.charts import Chart, Mark, coordinate
from reporting.formats import format_number
from reporting.scale import Scale, scale_of

MOST_POINTS = 800
"""Maximum number of points drawn per curve; each segment of a longer series keeps its lowest and highest point."""

FEW_POINTS = 10
"""Up to this many points, a curve connects the raw values without smoothing, which would hide them."""

SPARSE_POINTS = 100
"""Up to this many points, there is room to draw them larger."""

LONGEST_REACH = 100


@dataclass
class Series:
    """Values over ascending steps; a value is None if it is NaN or infinite."""

    name: str
    steps: list[int] = field(default_factory=list)
    values: list[float | None] = field(default_factory=list)

    def finite(self) -> list[float]:
        """Returns the finite values."""
        return [value for value in self.values if value is not None]


def draw_curves(
    title: str,
    members: Sequence[Series],
    *,
    colors: Sequence[int] | None = None,
    note: str = "",
    share: bool = False,
    unit: str = "",
    log_from: float = math.inf,
) -> Chart:
    """Draws series, each as points and a smoothed line.

    A chart of series without finite values has axes but no lines.

    Args:
        colors: the number of each series' color; None for 0, 1, 2, and so on.
        note: explanation of the values.
        share: whether values are fractions, shown as percentages.
        unit: unit of the values; empty if there is none.
        log_from: the axis is logarithmic if all values are positive and the largest is at least this many times the
            smallest.
    """
    x = step_scale(sorted({step for series in members for step in series.steps}))
    y = scale_of([value for series in members for value in series.finite()], log_from=log_from, share=share)
    drawn = [{series.steps[place]: series.values[place] for place in thinned(series)} for series in members]
    return Chart(
        kind="curves",
        title=title,
        note=note,
        marks=[
            _mark(series, color, x, y, [format_number(value, share=share, unit=unit) for value in series.values])
            for series, color in zip(members, range(len(members)) if colors is None else colors, strict=True)
        ],
        x_ticks=[(x.percent(tick), f"{tick:,.0f}") for tick in x.ticks(5) if tick == int(tick)],
        y=y,
        points=[
            (
                x.at(step),
                f"step {step:,}",
                [format_number(one[step], share=share, unit=unit) if step in one else "" for one in drawn],
            )
            for step in sorted(set().union(*drawn))
        ],
        share=share,
        unit=unit,
    )


@dataclass(frozen=True)
class Bin:
    """A bin of a reliability diagram: mean confidence, share of right decisions, and number of decisions."""

    confidence: float
    accuracy: float
    count: int


def draw_reliability(
    title: str, note: str, groups: Mapping[str, Sequence[Bin]], colors: Sequence[int] | None = None
) -> Chart:
    """Draws accuracy by confidence for decisions between two options, with the diagonal of perfect calibration.

    Args:
        groups: the bins of each curve, by ascending confidence from 1/2 to 1.
        colors: the number of each curve's color; None for 0, 1, 2, and so on.
    """
    x = Scale(0.5, 1.0)
    lowest = min(one.accuracy for bins in groups.values() for one in bins)
    y = Scale(min(0.5, math.floor(10 * lowest) / 10), 1.0)

    def at(confidence: float, accuracy: float) -> str:
        return f"{coordinate(x.at(confidence))} {coordinate(1 - y.at(accuracy))}"

    marks = [
        Mark(
            name,
            f"{sum(one.count for one in bins):,} pairs",
            color,
            dots="".join(f"M{at(one.confidence, one.accuracy)}h0" for one in bins),
            line="M" + "L".join(at(one.confidence, one.accuracy) for one in bins),
            sparse=True,
        )
        for (name, bins), color in zip(groups.items(), range(len(groups)) if colors is None else colors, strict=True)
    ]
    texts = [
        (one, [f"{format_number(one.accuracy, share=True)} of {one.count:,}" * (name == other) for other in groups])
        for name, bins in groups.items()
        for one in bins
    ]
    diagonal = Mark("perfect", "", 0, "calibration", line=f"M{at(0.5, 0.5)}L{at(1.0, 1.0)}", reference=True)
    return Chart(
        kind="curves",
        title=title,
        note=note,
        marks=[*marks, diagonal],
        x_ticks=[(x.percent(tick), format_number(tick, share=True)) for tick in x.ticks(5)],
        y=y,
        points=[
            (x.at(one.confidence), f"confidence {format_number(one.confidence, share=True)}", [*row, ""])
            for one, row in sorted(texts, key=lambda text: text[0].confidence)
        ],
        share=True,
    )


def sparkline(series: Series) -> str:
    """Returns the smoothed line alone, as SVG path data."""
    return _line(series, step_scale(series.steps), scale_of(series.finite()))


def thinned(series: Series, most: int = MOST_POINTS) -> list[int]:
    """Returns the indices of the points to draw.

    These are all points of a series of at most `most` points; of a longer series, the first, the last, and the lowest
    and the highest of each segment.
    """
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

    The method is that of Cleveland 1979, "Robust Locally Weighted Regression and Smoothing Scatterplots", without the
    robust steps. Unlike a moving average, it is not biased at the ends. The result is clamped to the range of the
    values used. It is the value itself if there are at most `FEW_POINTS` values, and None if that value is not finite,
    so that the line has a gap there.
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
    """Returns the scale of the axis of ascending `steps`; a single step lies in its middle."""
    first, last = steps[0], steps[-1]
    return Scale(first, last) if first < last else Scale(first - 1, first + 1)


def _mark(series: Series, color: int, x: Scale, y: Scale, texts: Sequence[str]) -> Mark:
    known = [text for text, value in zip(texts, series.values, strict=True) if value is not None]
    return Mark(
        series.name,
        texts[-1],
        color,
        f"from {known[0]} to {known[-1]} over {len(series.steps):,} steps" if known else "has no finite value",
        dots="".join(
            f"M{_point(x, y, series.steps[place], value)}h0"
            for place in thinned(series)
            if (value := series.values[place]) is not None
        ),
        line=_line(series, x, y),
        sparse=len(series.values) <= SPARSE_POINTS,
        gaps=_gaps(series, x),
    )


def _line(series: Series, x: Scale, y: Scale) -> str:
    path, pen = "", "M"
    for place in thinned(series):
        value = smoothed(series.values, place)
        if value is not None:
            path += pen + _point(x, y, series.steps[place], value)
        pen = "M" if value is None else "L"
    return path


def _point(x: Scale, y: Scale, step: int, value: float) -> str:
    return f"{coordinate(x.at(step))} {coordinate(1 - y.at(value))}"


def _gaps(series: Series, x: Scale) -> list[tuple[float, float]]:
    """Returns the intervals without finite values, extended to the neighboring points; see `Mark.gaps`."""
    gaps: list[tuple[int, int]] = []
    for place, value in enumerate(series.values):
        if value is not None:
            continue
        before, after = series.steps[max(place - 1, 0)], series.steps[min(place + 1, len(series.steps) - 1)]
        if gaps and before <= gaps[-1][1]:
            before = gaps.pop()[0]
        gaps.append((before, after))
    whole = [(x.percent(start), x.percent(end)) for start, end in gaps]
    return [(start, round(max(end - start, 0.5), 2)) for start, end in whole]
