"""What charts.html.jinja draws: SVG paths in a square of 1000 by 1000, y downward, and horizontal bars.

The page stretches the square. Text is not part of it, because stretching would distort it: the page places tick labels
by percentage. Series have the colors 0 to `COLORS` - 1 in turn.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from reporting.formats import format_number
from reporting.scale import Scale

COLORS = 8

Tick = tuple[float, str]
"""Position along the axis in percent, and the label."""


@dataclass(frozen=True)
class Mark:
    """One series in a chart, as SVG path data: raw values as `dots` and the smoothed curve as `line`, or an `area`.

    Attributes:
        value: the value in the legend.
        words: description for screen readers; empty for `value`.
        sparse: whether there are few dots.
        gaps: left end and width, in percent, of intervals without a finite value.
    """

    name: str
    value: str
    words: str = ""
    dots: str = ""
    line: str = ""
    area: str = ""
    sparse: bool = False
    gaps: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Chart:
    """Curves, stacked areas, or histograms on common axes.

    Attributes:
        kind: `curves`, `stack`, or `histogram`.
        points: position on the x axis from 0 to 1, heading, and a text per mark, for each point that shows its values.
        share: whether the y axis is in percent.
    """

    kind: str
    title: str
    note: str
    marks: list[Mark]
    x_ticks: list[Tick]
    y: Scale
    points: list[tuple[float, str, list[str]]]
    share: bool = False

    @property
    def y_ticks(self) -> list[Tick]:
        """The ticks of the y axis; percentages are from the top."""
        return [(round(100 - self.y.percent(y), 2), format_number(y, share=self.share)) for y in self.y.ticks()]

    @property
    def label(self) -> str:
        """Description for screen readers."""
        return f"{self.title}: " + "; ".join(f"{mark.name} {mark.words or mark.value}" for mark in self.marks)

    @property
    def hover(self) -> str:
        """JSON for charts.js: `{"at": [0..1], "heads": [text], "names": [text], "rows": [[text]]}`."""
        at, heads, rows = zip(*self.points, strict=True) if self.points else ((), (), ())
        names = [mark.name for mark in self.marks]
        return json.dumps({"at": [round(x, 4) for x in at], "heads": heads, "names": names, "rows": rows})


@dataclass(frozen=True)
class Bar:
    """A value with an optional interval; `text` is the value as printed, `name` the series that it belongs to, if any."""

    label: str
    value: float
    text: str
    name: str = ""
    color: int = 0
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class BarChart:
    """Horizontal bars on a common axis, one per row.

    Attributes:
        line: value of a dashed line, such as chance; None for no line.
        filled: whether a bar is drawn from the axis' left end; otherwise a dot at the value.
    """

    title: str
    note: str
    bars: list[Bar]
    scale: Scale
    ticks: list[Tick]
    line: float | None = None
    filled: bool = True

    @property
    def groups(self) -> dict[str, list[Bar]]:
        """Bars by label, in order of appearance."""
        return {label: [bar for bar in self.bars if bar.label == label] for label in (bar.label for bar in self.bars)}


def coordinate(part: float) -> str:
    """Returns a fraction of the square's side as SVG path data."""
    return f"{1000 * part:.1f}".removesuffix(".0")
