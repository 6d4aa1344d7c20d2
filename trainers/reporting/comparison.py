"""Renders several runs as one page: metrics overlaid, with a color per run, and tables of their differences."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from configs.errors import ConfigError
from reporting.charts import COLORS, Bar, BarChart, Chart
from reporting.formats import display_unit, format_number, format_seconds, format_time
from reporting.page import render as render_page
from reporting.scale import scale_of
from reporting.tables import Row, Table
from trainers.reporting.calibration import SECTION, read_evaluation, reliability_diagram, score_histogram
from trainers.reporting.page import STAGES, curves_of, key_value, sections
from trainers.reporting.record import Record
from trainers.runs.panels import CARDS, PHASE, Panel, panels_of

_ABSENT = "–"
_SAME_LOSS = {"pretrain": "tokens", "sft": "tokens"}
"""Stages whose `Panel.by_stage` metrics measure the same, the cross-entropy per predicted token."""

Records = Mapping[str, Record]
"""The compared runs by label; their order decides the colors."""


def render_comparison(given: Sequence[Record], now: float | None = None, refresh_s: int = 0) -> str:
    """Returns the page's HTML.

    Args:
        given: the runs, at least two.
        now: time of the report in Unix seconds; None for the current time.
        refresh_s: seconds after which a browser loads the page again; 0 for never.

    Raises:
        ConfigError: there are more runs than colors, a run is given twice, or no two runs share a metric.
    """
    now = time.time() if now is None else now
    records = labeled(given)
    shared, own = overlays(records), own_sections(records)
    _add_evaluations(records, shared, own)
    phases = phase_bars(records)
    if not shared and phases is None:
        waiting = [label for label, record in records.items() if not record.steps]
        reason = f" ({', '.join(waiting)}: no step logged yet)" if waiting else ""
        raise ConfigError(
            f"{', '.join(records)}: no two of these runs share a metric{reason}; report on each run alone"
        )
    return render_page(
        Path(__file__).with_name("comparison.html.jinja"),
        hover=True,
        refresh_s=refresh_s,
        records=records,
        stages=STAGES,
        states={label: record.state(now) for label, record in records.items()},
        made=format_time(now),
        metrics=key_metrics(records, now),
        settings=changed_settings(records),
        sections=shared,
        phases=phases,
        own=own,
    )


def labeled(given: Sequence[Record]) -> dict[str, Record]:
    """Returns the runs by name, or by folder where two runs have the same name.

    Raises:
        ConfigError: there are more runs than colors, or a run is given twice.
    """
    if len(given) > COLORS:
        raise ConfigError(f"{len(given)} runs: a report compares at most {COLORS}; give fewer")
    folders = [record.folder.resolve() for record in given]
    for folder in folders:
        if folders.count(folder) > 1:
            raise ConfigError(f"{folder}: is given more than once; give each run once")
    names = [record.name for record in given]
    return {record.name if names.count(record.name) == 1 else str(record.folder): record for record in given}


def overlays(records: Records) -> dict[str, list[Chart]]:
    """Returns one chart per metric that several runs have, by section, with a curve per run."""
    colors = {label: color for color, label in enumerate(records)}
    charts: dict[str, list[Chart]] = {}
    for panel, names in panels_of(_names(records)):
        compared = {name: groups for name in names if (groups := _comparable(panel, name, records))}
        for name, groups in compared.items():
            for labels in groups:
                title = panel.title if len(compared) == 1 else f"{panel.title}: {name}"
                if len(groups) > 1:
                    title += f", {STAGES[records[labels[0]].stage]}"
                members = [replace(records[label].series[name], name=label) for label in labels]
                chart = curves_of(panel, members, title, [colors[label] for label in labels])
                charts.setdefault(panel.section, []).append(chart)
    return charts


def phase_bars(records: Records) -> BarChart | None:
    """Returns the mean time of every phase by run, as bars; None if fewer than two runs have phases."""
    means = {
        label: {
            name.removeprefix(PHASE): sum(series.finite()) / len(series.finite())
            for name, series in record.series.items()
            if name.startswith(PHASE) and series.finite()
        }
        for label, record in records.items()
    }
    if sum(map(bool, means.values())) < 2:
        return None
    values = [value for phases in means.values() for value in phases.values()]
    unit = display_unit("seconds", values)
    scale = scale_of([0.0, *(value / unit.size for value in values)])
    bars = [
        Bar(phase, mean / unit.size, format_seconds(mean), label, color)
        for phase in dict.fromkeys(phase for phases in means.values() for phase in phases)
        for color, (label, phases) in enumerate(means.items())
        if (mean := phases.get(phase)) is not None
    ]
    ticks = [(scale.percent(tick), format_number(tick, unit=unit.symbol)) for tick in scale.ticks(2)]
    return BarChart("Time per step, by phase", "mean over the run's steps", bars, scale, ticks)


def own_sections(records: Records) -> dict[str, list[Chart]]:
    """Returns, by run, the charts of the metrics that are not compared with those of another run."""
    shared = {
        (label, name)
        for panel, names in panels_of(_names(records))
        for name in names
        for labels in _comparable(panel, name, records)
        for label in labels
    }
    compared_phases = phase_bars(records) is not None
    own: dict[str, list[Chart]] = {}
    for label, record in records.items():
        series = {
            name: one
            for name, one in record.series.items()
            if (not compared_phases if name.startswith(PHASE) else (label, name) not in shared)
        }
        charts = [chart for section in sections(replace(record, series=series)).values() for chart in section]
        if charts:
            own[label] = charts
    return own


def key_metrics(records: Records, now: float) -> Table:
    """Returns the table of stage, state, steps, duration, and final key metrics, with one column per run."""
    rows = [
        Row("stage", [STAGES[record.stage] for record in records.values()]),
        Row("state", [record.state(now) for record in records.values()]),
        Row("steps", [_steps(record) for record in records.values()]),
        Row("time", [_took(record) for record in records.values()]),
    ]
    for name, title in CARDS:
        found = [record.series.get(name) for record in records.values()]
        if any(found):
            rows.append(
                Row(title, [_ABSENT if series is None else " ".join(key_value(series)).rstrip() for series in found])
            )
    note = "Metrics are means over the last tenth of each run's values; time is from the first to the last logged step."
    return Table("Key metrics", [*records], rows, [note])


def changed_settings(records: Records) -> Table:
    """Returns the table of the settings that differ, with one column per run.

    A setting that only some stages have is compared among the runs of these stages.
    """
    flat = {label: _flat(record.values) for label, record in records.items()}
    rows = []
    for key in dict.fromkeys(key for values in flat.values() for key in values):
        stages = {records[label].stage for label, values in flat.items() if key in values}
        asked = [values.get(key) for label, values in flat.items() if records[label].stage in stages]
        if key != "name" and len(set(asked)) > 1:
            rows.append(Row(key, [values.get(key, _ABSENT) for values in flat.values()]))
    return Table("Changed settings", [*records], rows)


def _add_evaluations(records: Records, shared: dict[str, list[Chart]], own: dict[str, list[Chart]]) -> None:
    """Adds the charts of reward models' held-out evaluations: reliability to `shared` if several runs have it."""
    colors = {label: color for color, label in enumerate(records)}
    evaluated = {
        label: evaluation
        for label, record in records.items()
        if (evaluation := read_evaluation(record.folder, record.stage)) is not None
    }
    if len(evaluated) > 1:
        diagram = reliability_diagram(evaluated, [colors[label] for label in evaluated])
        shared.setdefault(SECTION, []).append(diagram)
    for label, evaluation in evaluated.items():
        charts = own.setdefault(label, [])
        charts.append(score_histogram(evaluation))
        if len(evaluated) == 1:
            charts.append(reliability_diagram({"accuracy": evaluation}))


def _names(records: Records) -> list[str]:
    return list(dict.fromkeys(name for record in records.values() for name in record.series))


def _comparable(panel: Panel, name: str, records: Records) -> list[list[str]]:
    """Returns the groups of at least two runs that can be compared by the metric `name`, as lists of labels."""
    groups: dict[str, list[str]] = {}
    for label, record in records.items():
        if name in record.series:
            measured = _SAME_LOSS.get(record.stage, record.stage) if panel.by_stage else ""
            groups.setdefault(measured, []).append(label)
    return [labels for labels in groups.values() if len(labels) > 1]


def _steps(record: Record) -> str:
    done = f"{record.steps[-1]:,}" if record.steps else "0"
    return f"{done} of {record.planned:,}" if record.planned else done


def _took(record: Record) -> str:
    if record.began is None or record.ended is None:
        return _ABSENT
    return format_seconds(record.ended - record.began)


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, str]:
    """Returns settings as text, by dotted key."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{path}{key}.")
        else:
            found[f"{path}{key}"] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return found
