"""Renders the report as an HTML page: counts in and out, why rows were removed, how long they are, and examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from data.prepare.options import STEPS
from data.prepare.tally import BINS

WHAT: Final = {
    "bad": "cannot be used",
    "unicode": "characters normalized",
    "markup": "mark-up and boilerplate removed",
    "privacy": "personal data masked",
    "length": "too short or too long",
    "repetition": "repeats itself",
    "decontamination": "without text that evaluation items have",
    "exact": "repeats another row",
    "near": "repeats another row in other words",
}


@dataclass(frozen=True)
class Bar:
    """A bar of the length histogram: rows of `label` characters; the height is in percent of the highest bar."""

    label: str
    rows: int
    height: float


def render(report: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """Return the page's HTML, from `report.json` and the request `asked`; all text is escaped."""
    order = ["bad", *STEPS[:3], "length", "repetition", "decontamination", "exact", "near"]
    return _template().render(
        report=report,
        asked=asked,
        what=WHAT,
        steps=[step for step in order if step in report["removed"] or step in report["changed"]],
        examples=[(step, report["examples"][step]) for step in order if step in report["examples"]],
        labels=labels_of(report),
        bars=bars({int(key): count for key, count in report["lengths"].items()}),
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.jinja")


def labels_of(report: Mapping[str, Any]) -> dict[str, int]:
    """Return the labels that were removed from sections of classics, with the number of these sections in all files."""
    found: Counter[str] = Counter()
    for labels in report["section_labels"].values():
        found.update(labels)
    return dict(sorted(found.items()))


def bars(lengths: Mapping[int, int]) -> list[Bar]:
    """Return the histogram from its first bin with rows to its last."""
    if not lengths:
        return []
    highest = max(lengths.values())
    return [
        Bar(_label(index), lengths.get(index, 0), 100 * lengths.get(index, 0) / highest)
        for index in range(min(lengths), max(lengths) + 1)
    ]


def _label(index: int) -> str:
    low = round(2 ** (index / 2))
    return f"{low:,} or more" if index == BINS - 1 else f"{low:,} to {round(2 ** ((index + 1) / 2)):,}"
