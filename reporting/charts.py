"""Charts that charts.html.jinja draws: SVG paths in a square of 1000 by 1000, with y pointing down, and bar charts.

The page stretches the square to the size of the chart. Text is not part of the square, because stretching would distort
it: the page positions tick labels by percentage. Colors are numbers from 0; `COLORS` of them differ.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

from reporting.formats import format_number
from reporting.scale import Scale

COLORS = 8

Tick = tuple[float, str]
"""Position of a tick along the axis, in percent, and its label."""


@dataclass(frozen=True)
class Mark:
    """One series in a chart, as SVG path data: raw values as `dots` and the smoothed curve as `line`, or an `area`.

    Attributes:
        value: the value in the legend.
        color: number of the color.
        words: description for screen readers; if empty, `value` is used.
        reference: whether it is a reference for the others, drawn as a dashed line without a color.
        sparse: whether there are few dots, which are then drawn larger.
        gaps: left end and width, in percent, of intervals without a finite value.
    """

    name: str
    value: str
    color: int
    words: str = ""
    dots: str = ""
    line: str = ""
    area: str = ""
    reference: bool = False
    sparse: bool = False
    gaps: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Chart:
    """Curves, stacked areas, or histograms on common axes.

    Attributes:
        kind: `curves`, `stack`, or `histogram`.
        points: the points that show their values: position on the x axis from 0 to 1, heading, and a text per mark.
        share: whether the y axis is in percent.
        unit: unit of the y axis; empty if there is none.
    """

    kind: str
    title: str
    note: str
    marks: list[Mark]
    x_ticks: list[Tick]
    y: Scale
    points: list[tuple[float, str, list[str]]]
    share: bool = False
    unit: str = ""

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
        """JSON for charts.js: `{"at": [0..1], "heads": [text], "names": [text], "colors": [int], "rows": [[text]]}`."""
        at, heads, rows = zip(*self.points, strict=True) if self.points else ((), (), ())
        names, colors = [mark.name for mark in self.marks], [mark.color % COLORS for mark in self.marks]
        places = [round(x, 4) for x in at]
        return json.dumps({"at": places, "heads": heads, "names": names, "colors": colors, "rows": rows})


@dataclass(frozen=True)
class Bar:
    """A value with an optional interval, drawn as one bar.

    Attributes:
        text: the value as printed.
        name: the series that the value belongs to; empty if there is none.
    """

    label: str
    value: float
    text: str
    name: str = ""
    color: int = 0
    interval: tuple[float, float] | None = None

    @property
    def finite(self) -> bool:
        """Whether the value can be drawn; otherwise only its text is shown."""
        return math.isfinite(self.value)


@dataclass(frozen=True)
class BarChart:
    """Horizontal bars on a common axis, one per row.

    Attributes:
        line: value that a dashed line marks, such as chance accuracy; None for no line.
        filled: whether a value is drawn as a bar from the left end of the axis; otherwise it is drawn as a dot.
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
