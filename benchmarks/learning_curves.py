"""Learning curves of several algorithms as one SVG: per algorithm, a panel with the curve of each seed and their mean.

The file is self-contained and follows the reader's color scheme, light or dark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from statistics import mean

from reporting.formats import format_number
from reporting.scale import Scale

Curves = Mapping[str, Sequence[Sequence[float]]]
"""The curves of all seeds, by title; each has one value per step, a fraction."""

ACROSS = 4  # panels in a row
WIDTH, HEIGHT = 204, 118  # plot of a panel
GAP, LEFT, TOP, BOTTOM = 24, 52, 48, 52
HEAD = 26  # height of the title above each plot
PANEL = HEAD + HEIGHT + 34

STYLE = """
text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: #5a6467; }
.ground { fill: #ffffff; }
.title { font-size: 13px; font-weight: 600; fill: #1b2022; }
.end { font-size: 12px; font-weight: 600; fill: #0b7a74; }
.grid { stroke: #e0e3e1; }
.axis { stroke: #9ba5a8; }
path { fill: none; stroke: #0b7a74; stroke-linejoin: round; stroke-linecap: round; }
.seed { stroke-width: 1; opacity: 0.6; }
.mean { stroke-width: 2.25; }
@media (prefers-color-scheme: dark) {
  text { fill: #9ba5a8; }
  .ground { fill: #131617; }
  .title { fill: #e6e9e9; }
  .end { fill: #5ec8bc; }
  .grid { stroke: #30363a; }
  .axis { stroke: #5a6467; }
  path { stroke: #5ec8bc; }
}
"""


def draw(curves: Curves, y_title: str, last: int) -> str:
    """Returns the SVG. All panels have the same axes. Next to each title is the seeds' mean over the `last` steps."""
    rows = -(-len(curves) // ACROSS)
    columns = min(ACROSS, len(curves))
    width, height = LEFT + columns * (WIDTH + GAP), TOP + rows * PANEL + BOTTOM - 34
    x = Scale(1, max(2, *(len(seed) for seeds in curves.values() for seed in seeds)))
    panels = [
        _panel(title, seeds, x, LEFT + index % ACROSS * (WIDTH + GAP), TOP + index // ACROSS * PANEL, last)
        for index, (title, seeds) in enumerate(curves.items())
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">',
            f"<title>{escape(_words(curves, y_title, last))}</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="ground" width="{width}" height="{height}" rx="8"/>',
            *_legend(LEFT, 30, y_title, last),
            *panels,
            f'<text x="{LEFT + (width - LEFT - GAP) / 2:g}" y="{height - 14}" text-anchor="middle">step</text>',
            "</svg>\n",
        ]
    )


def _panel(title: str, seeds: Sequence[Sequence[float]], x: Scale, left: int, top: int, last: int) -> str:
    floor, y = top + HEAD + HEIGHT, Scale(0.0, 1.0)

    def at(step: float, value: float) -> str:
        return f"{left + WIDTH * x.at(step):.1f} {floor - HEIGHT * y.at(value):.1f}"

    def path(kind: str, values: Sequence[float]) -> str:
        points = "L".join(at(step, value) for step, value in enumerate(values, start=1))
        return f'<path class="{kind}" d="M{points}"/>'

    parts = [
        f'<text class="title" x="{left}" y="{top + 14}">{escape(title)}</text>',
        f'<text class="end" x="{left + WIDTH}" y="{top + 14}" text-anchor="end">{_end(seeds, last)}</text>',
    ]
    for tick in y.ticks():
        place = floor - HEIGHT * y.at(tick)
        kind = "axis" if tick == 0 else "grid"
        parts.append(f'<line class="{kind}" x1="{left}" x2="{left + WIDTH}" y1="{place:g}" y2="{place:g}"/>')
        if left == LEFT:
            label = format_number(tick, share=True)
            parts.append(f'<text x="{left - 8}" y="{place + 4:g}" text-anchor="end">{label}</text>')
    for tick in [1.0, *(tick for tick in x.ticks() if tick > 1)]:
        place = left + WIDTH * x.at(tick)
        parts.append(f'<text x="{place:g}" y="{floor + 17}" text-anchor="middle">{format_number(tick)}</text>')
    parts += [path("seed", seed) for seed in seeds]
    parts.append(path("mean", [mean(at_step) for at_step in zip(*seeds, strict=True)]))
    return "\n".join(parts)


def _legend(left: int, y: int, y_title: str, last: int) -> list[str]:
    return [
        f'<text class="title" x="{left}" y="{y}">{escape(y_title)}</text>',
        f'<path class="seed" d="M{left + 270} {y - 4}h22"/>',
        f'<text x="{left + 298}" y="{y}">a seed</text>',
        f'<path class="mean" d="M{left + 352} {y - 4}h22"/>',
        f'<text x="{left + 380}" y="{y}">mean of the seeds</text>',
        f'<text x="{left + 512}" y="{y}">next to each name: the mean of the last {last} steps</text>',
    ]


def _end(seeds: Sequence[Sequence[float]], last: int) -> str:
    return format_number(round(mean(mean(seed[-last:]) for seed in seeds), 2), share=True)


def _words(curves: Curves, y_title: str, last: int) -> str:
    return f"{y_title}, mean of the last {last} steps: " + "; ".join(
        f"{title} {_end(seeds, last)}" for title, seeds in curves.items()
    )
