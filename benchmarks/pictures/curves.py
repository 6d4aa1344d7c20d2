"""Learning curves of the quickstart's stages as one SVG: a row of panels, one per stage, each with its own axes.

The file is self-contained and follows the reader's color scheme, light or dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from benchmarks.learning_curves import STYLE
from configs.errors import DataError
from reporting.formats import format_number
from reporting.scale import Scale, scale_of
from trainers.runs.folder import read_metrics

WIDTH, HEIGHT = 186, 118  # plot of a panel
LEFT, TOP, BOTTOM, GAP = 46, 58, 44, 50


@dataclass(frozen=True)
class Panel:
    """One curve. `points` are (step, value), in the order of the steps."""

    title: str
    subtitle: str
    points: Sequence[tuple[int, float]]
    share: bool = False  # values are fractions, shown as percentages
    log_from: float = math.inf  # see `scale_of`


STAGES = (
    ("pretrain", "heldout_perplexity", "Continued pretraining", "perplexity of held-out text", False, 10.0),
    ("sft", "heldout_loss", "SFT", "loss on held-out chats, nats per token", False, math.inf),
    ("reward", "heldout_accuracy", "Reward model", "accuracy on held-out pairs", True, math.inf),
    ("ppo", "reward", "PPO", "reward of a step's responses", False, math.inf),
)
"""Run, metric, title, subtitle, whether values are fractions, and from which ratio the axis is logarithmic."""


def quickstart_panels(runs: Path) -> list[Panel]:
    """Reads the curves of a quickstart's stages below `runs`.

    Raises:
        DataError: a run has no such metric; the message names the run.
    """
    return [
        Panel(title, subtitle, _curve(runs / stage, metric), share, log_from)
        for stage, metric, title, subtitle, share, log_from in STAGES
    ]


def draw(panels: Sequence[Panel]) -> str:
    """Returns the SVG."""
    width, height = LEFT + len(panels) * (WIDTH + GAP) - GAP + 24, TOP + HEIGHT + BOTTOM
    words = "; ".join(f"{panel.title}: {panel.subtitle}, {_ends(panel)}" for panel in panels)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">',
            f"<title>{escape(words)}</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="ground" width="{width}" height="{height}" rx="8"/>',
            *(_panel(panel, LEFT + index * (WIDTH + GAP)) for index, panel in enumerate(panels)),
            "</svg>\n",
        ]
    )


def _panel(panel: Panel, left: int) -> str:
    floor = TOP + HEIGHT
    x = Scale(panel.points[0][0], max(panel.points[-1][0], panel.points[0][0] + 1))
    y = scale_of((value for _, value in panel.points), share=panel.share, log_from=panel.log_from)
    points = "L".join(
        f"{left + WIDTH * x.at(step):.1f} {floor - HEIGHT * y.at(value):.1f}" for step, value in panel.points
    )
    parts = [
        f'<text class="title" x="{left}" y="26">{escape(panel.title)}</text>',
        f'<text x="{left}" y="43">{escape(panel.subtitle)}</text>',
    ]
    for tick in y.ticks(3):
        place = floor - HEIGHT * y.at(tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{left + WIDTH}" y1="{place:g}" y2="{place:g}"/>')
        label = format_number(tick, share=panel.share)
        parts.append(f'<text x="{left - 6}" y="{place + 4:g}" text-anchor="end">{label}</text>')
    parts.append(f'<line class="axis" x1="{left}" x2="{left + WIDTH}" y1="{floor}" y2="{floor}"/>')
    for tick in x.ticks(3):
        place = left + WIDTH * x.at(tick)
        parts.append(f'<text x="{place:g}" y="{floor + 17}" text-anchor="middle">{format_number(tick)}</text>')
    parts.append(f'<text x="{left + WIDTH / 2:g}" y="{floor + 33}" text-anchor="middle">step</text>')
    parts.append(f'<path class="mean" d="M{points}"/>')
    return "\n".join(parts)


def _curve(run: Path, metric: str) -> list[tuple[int, float]]:
    points = [(line["step"], float(line[metric])) for line in read_metrics(run) if metric in line]
    if len(points) < 2:
        raise DataError(f"{run}: metrics.jsonl has fewer than two values of {metric}; run `make quickstart` first")
    return points


def _ends(panel: Panel) -> str:
    first, last = (format_number(panel.points[index][1], share=panel.share) for index in (0, -1))
    return f"from {first} to {last}"
