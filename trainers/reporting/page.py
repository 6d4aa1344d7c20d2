"""Renders the report of a run as one self-contained HTML page."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reporting.areas import draw_stack
from reporting.charts import Chart
from reporting.curves import Series, draw_curves, sparkline
from reporting.formats import Unit, display_unit, format_number, format_time
from reporting.page import render as render_page
from trainers.reporting.calibration import (
    SECTION,
    RewardEvaluation,
    read_evaluation,
    reliability_diagram,
    score_histogram,
)
from trainers.reporting.record import Record
from trainers.reporting.samples import SamplesView
from trainers.runs.panels import CARDS, PHASE, Panel, panel_of, panels_of
from trainers.runs.progress import clock

MOST_CARDS = 8
STAGES = {
    "pretrain": "Pretraining",
    "sft": "Supervised fine-tuning",
    "reward": "Reward model",
    "dpo": "DPO",
    "ppo": "PPO",
    "rejection": "Rejection sampling",
}


@dataclass(frozen=True)
class Card:
    """A key metric: its means over the last and over the first tenth of the steps, and its curve."""

    title: str
    value: str
    unit: str
    before: str
    spark: str


def render(record: Record, samples: SamplesView | None, now: float | None = None, refresh_s: int = 0) -> str:
    """Returns the page's HTML.

    Args:
        record: the content of the run's folder.
        samples: the run's samples of text; None if it has none.
        now: time of the report in Unix seconds; None for the current time.
        refresh_s: seconds after which a browser loads the page again; 0 for never.
    """
    now = time.time() if now is None else now
    return render_page(
        Path(__file__).with_name("page.html.jinja"),
        hover=True,
        refresh_s=refresh_s,
        record=record,
        stage=STAGES.get(record.stage, record.stage),
        state=record.state(now),
        progress=_progress(record),
        facts=_facts(record, now),
        cards=cards(record),
        sections=with_evaluation(sections(record), read_evaluation(record.folder, record.stage)),
        samples=samples,
    )


def cards(record: Record) -> list[Card]:
    """Returns the key metrics that this run has, at most `MOST_CARDS`."""
    found: list[Card] = []
    for name, title in CARDS:
        series = record.series.get(name)
        if series is None or len(found) == MOST_CARDS:
            continue
        value, unit = key_value(series)
        before = key_value(series, first=True)[0] if len(series.values) > 1 else ""
        found.append(Card(title, value, unit, before, sparkline(series)))
    return found


def key_value(series: Series, *, first: bool = False) -> tuple[str, str]:
    """Formats the mean over the last tenth of a metric's values, or over the first tenth; returns it and its unit."""
    panel = panel_of(series.name)
    mean = _tenth(series.values if first else series.values[::-1])
    unit = display_unit(panel.unit if panel else "", series.finite())
    if mean is None:
        return format_number(None), ""
    return format_number(mean / unit.size, share=panel is not None and panel.share), unit.symbol


def sections(record: Record) -> dict[str, list[Chart]]:
    """Returns the charts of all metrics, by section; the chart of phases is the first of its section."""
    charts: dict[str, list[Chart]] = {}
    for panel, names in panels_of(record.series):
        charts.setdefault(panel.section, []).append(curves_of(panel, [record.series[name] for name in names]))
    phases = [
        replace(series, name=name.removeprefix(PHASE))
        for name, series in record.series.items()
        if name.startswith(PHASE)
    ]
    if phases:
        unit, phases = in_display_unit("seconds", phases)
        charts.setdefault("Time", []).insert(
            0, draw_stack("Time per step, by phase", phases, record.steps, unit.symbol)
        )
    return charts


def with_evaluation(charts: dict[str, list[Chart]], evaluation: RewardEvaluation | None) -> dict[str, list[Chart]]:
    """Adds the charts of a reward model's held-out evaluation, if there is one, to their section."""
    if evaluation is not None:
        added = [score_histogram(evaluation), reliability_diagram({"accuracy": evaluation})]
        charts[SECTION] = [*charts.get(SECTION, []), *added]
    return charts


def curves_of(
    panel: Panel, members: Sequence[Series], title: str | None = None, colors: Sequence[int] | None = None
) -> Chart:
    """Draws metrics of a panel in one chart.

    Args:
        title: None for the panel's title.
        colors: the number of each series' color; None for 0, 1, 2, and so on.
    """
    unit, members = in_display_unit(panel.unit, members)
    return draw_curves(
        title or panel.title,
        members,
        colors=colors,
        note=panel.note,
        share=panel.share,
        unit=unit.symbol,
        log_from=panel.log_from,
    )


def in_display_unit(logged: str, members: Sequence[Series]) -> tuple[Unit, list[Series]]:
    """Returns the unit in which to show series that were logged in the unit `logged`, and the series in that unit."""
    unit = display_unit(logged, [value for series in members for value in series.finite()])
    return unit, [
        replace(series, values=[None if value is None else value / unit.size for value in series.values])
        for series in members
    ]


def _tenth(values: Sequence[float | None]) -> float | None:
    """Returns the mean of the finite values among the first tenth of `values`; None if there are none."""
    known = [value for value in values[: math.ceil(len(values) / 10)] if value is not None]
    return sum(known) / len(known) if known else None


def _progress(record: Record) -> float | None:
    """Returns the percentage of the stage's steps that are completed; None if the number of steps is unknown."""
    if record.finished:
        return 100.0
    if not record.planned:
        return None
    return min(100.0, round(100 * (record.steps[-1] if record.steps else 0) / record.planned, 1))


def _facts(record: Record, now: float) -> list[tuple[str, str]]:
    """Returns the facts shown below the title, as pairs of label and value."""
    done = record.steps[-1] if record.steps else 0
    facts = [("step", f"{done:,} of {record.planned:,}" if record.planned else f"{done:,}")]
    if record.began is not None and record.ended is not None:
        facts += [("began", format_time(record.began)), ("last step", format_time(record.ended))]
        if record.ended > record.began:
            facts.append(("took", clock(record.ended - record.began)))
    return [*facts, ("report of", format_time(now))]
