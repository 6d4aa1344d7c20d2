"""Charts of areas: stacked bars over steps, for values that add up, and histograms."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence

import numpy as np

from reporting.charts import Chart, Mark, coordinate
from reporting.curves import Series, step_scale
from reporting.formats import format_number
from reporting.scale import Scale, scale_of

MOST_BARS = 200


def draw_stack(title: str, members: Sequence[Series], steps: Sequence[int], unit: str) -> Chart:
    """Draws series that add up, such as the times of phases, as stacked bars, one per step.

    With more than `MOST_BARS` steps, a bar is the mean of several steps. A series without a value at a step counts as 0
    there.
    """
    by_step = [dict(zip(one.steps, one.values, strict=True)) for one in members]
    table = np.array([[values.get(step) or 0.0 for step in steps] for values in by_step])  # [series, steps]
    width = math.ceil(len(steps) / MOST_BARS)
    bars = [steps[start : start + width] for start in range(0, len(steps), width)]
    heights = np.add.reduceat(table, range(0, len(steps), width), axis=1) / [len(bar) for bar in bars]
    tops = heights.cumsum(axis=0)
    shares = table.sum(axis=1) / (table.sum() or 1.0)
    x, y = Scale(0.0, len(bars)), scale_of([0.0, *tops[-1].tolist()])
    marks = [
        Mark(
            one.name,
            f"{format_number(mean, unit=unit)}, {format_number(share, share=True)}",
            color,
            area=_outline(y, top - height, top),
        )
        for color, (one, mean, share, height, top) in enumerate(
            zip(members, table.mean(axis=1), shares, heights, tops, strict=True)
        )
    ]
    starts = [bar[0] for bar in bars]
    labeled = [tick for tick in step_scale(steps).ticks(5) if tick == int(tick) and steps[0] <= tick <= steps[-1]]
    return Chart(
        kind="stack",
        title=title,
        note="mean and share of all steps below" + (f"; a bar is the mean of {width} steps" if width > 1 else ""),
        marks=marks,
        x_ticks=[(x.percent(bisect_right(starts, tick) - 0.5), f"{tick:,.0f}") for tick in labeled],
        y=y,
        points=[
            (
                x.at(n + 0.5),
                f"step {bar[0]:,}" if len(bar) == 1 else f"steps {bar[0]:,} to {bar[-1]:,}",
                [format_number(height, unit=unit) for height in heights[:, n]],
            )
            for n, bar in enumerate(bars)
        ],
        unit=unit,
    )


def draw_histogram(title: str, note: str, groups: Mapping[str, Sequence[float]], edges: Sequence[float]) -> Chart:
    """Draws a histogram of several groups: the share of each group's values in each bin.

    Args:
        edges: the bins' edges, ascending and equally spaced.
    """
    means = [f"mean {format_number(sum(values) / len(values))}" if values else "none" for values in groups.values()]
    return draw_counts(title, note, {name: counted(row, edges) for name, row in groups.items()}, edges, means)


def draw_counts(
    title: str, note: str, groups: Mapping[str, Sequence[int]], edges: Sequence[float], legend: Sequence[str]
) -> Chart:
    """Draws a histogram from the number of each group's values in each bin.

    Args:
        edges: the bins' edges, ascending and equally spaced.
        legend: the text in the legend for each group.
    """
    x, bins, counts = Scale(edges[0], edges[-1]), len(edges) - 1, list(groups.values())
    shares = [[count / (sum(row) or 1) for count in row] for row in counts]
    y = scale_of([0.0, *map(max, shares)], share=True)
    return Chart(
        kind="histogram",
        title=title,
        note=note,
        marks=[
            Mark(name, text, color, area=_outline(y, [0.0] * bins, row))
            for color, (name, text, row) in enumerate(zip(groups, legend, shares, strict=True))
        ],
        x_ticks=[(x.percent(tick), format_number(tick)) for tick in x.ticks(5)],
        y=y,
        points=[
            (
                (n + 0.5) / bins,
                f"{format_number(edges[n])} to {format_number(edges[n + 1])}",
                [f"{row[n]} of {sum(row)}" for row in counts],
            )
            for n in range(bins)
        ],
        share=True,
    )


def counted(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    """Counts the values in each half-open bin `[edge, next edge)`; the last bin is closed.

    A value outside all bins, for example because of rounding, is counted in the nearest one.
    """
    counts: list[int] = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0].tolist()
    return counts


def _outline(y: Scale, below: Sequence[float], above: Sequence[float]) -> str:
    """Returns the outline of adjacent bars of equal width as SVG path data: along their tops, then their bottoms."""
    last = len(above)
    there = "".join(f"V{coordinate(1 - y.at(top))}H{coordinate((n + 1) / last)}" for n, top in enumerate(above))
    feet = reversed(list(enumerate(below)))
    back = "".join(f"V{coordinate(1 - y.at(foot))}H{coordinate(n / last)}" for n, foot in feet)
    return f"M0 {coordinate(1 - y.at(below[0]))}{there}{back}Z"
