"""Renders the report as an HTML page: record and row counts, reasons for removal, row lengths, and examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from data.prepare.options import STEPS
from data.prepare.tally import BINS
from reporting.charts import Bar, BarChart
from reporting.page import render as render_page
from reporting.scale import Scale

WHAT: Final = {
    "bad": "cannot be used",
    "unicode": "characters normalized",
    "markup": "markup and boilerplate removed",
    "privacy": "personal data masked",
    "length": "too short or too long",
    "repetition": "repeats itself",
    "decontamination": "text from evaluation items removed",
    "exact": "exact duplicate of another row",
    "near": "near duplicate of another row",
}


def render(report: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """Returns the page's HTML, from `_report.json` and the request `asked`; all text is escaped."""
    order = ["bad", *STEPS[:3], "length", "repetition", "decontamination", "exact", "near"]
    return render_page(
        Path(__file__).with_name("report.html.jinja"),
        report=report,
        asked=asked,
        what=WHAT,
        steps=[step for step in order if step in report["removed"] or step in report["changed"]],
        examples=[(step, report["examples"][step]) for step in order if step in report["examples"]],
        labels=labels_of(report),
        lengths=histogram({int(key): count for key, count in report["lengths"].items()}),
    )


def labels_of(report: Mapping[str, Any]) -> dict[str, int]:
    """Returns the labels that were removed from sections of classical texts, with the number of sections of each."""
    found: Counter[str] = Counter()
    for labels in report["section_labels"].values():
        found.update(labels)
    return dict(sorted(found.items()))


def histogram(lengths: Mapping[int, int]) -> BarChart:
    """Returns the histogram of rows' lengths, from its first bin with rows to its last."""
    bins = range(min(lengths), max(lengths) + 1) if lengths else ()
    bars = [Bar(_label(index), lengths.get(index, 0), f"{lengths.get(index, 0):,}") for index in bins]
    return BarChart("", "", bars, Scale(0.0, max(lengths.values(), default=1)), ticks=[])


def _label(index: int) -> str:
    low = round(2 ** (index / 2))
    return f"{low:,} or more" if index == BINS - 1 else f"{low:,} to {round(2 ** ((index + 1) / 2)):,}"
