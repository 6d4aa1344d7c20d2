"""The quickstart's results as one self-contained HTML page: table, curves, answers side by side, attitude scales."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evals.report.page import DISCLAIMER
from evals.report.plots import scale_plots
from evals.report.table import HEADER, STAGES, cells, reward_model_sentence
from evals.report.tables import warnings
from reporting.charts import Chart
from reporting.formats import format_number, format_seconds, format_time
from reporting.page import render
from reporting.tables import Row, Table
from trainers.quickstart.results import answers_of
from trainers.reporting.page import STAGES as TITLES
from trainers.reporting.page import curves_of
from trainers.reporting.record import read_record
from trainers.runs.panels import panel_of

CURVES = (
    ("pretrain", "heldout_perplexity"),
    ("sft", "heldout_loss"),
    ("reward", "heldout_accuracy"),
    ("ppo", "reward"),
)
"""The run and the metric of each chart."""


def to_html(root: Path, table: Mapping[str, Any], models: Mapping[str, Any], now: float | None = None) -> str:
    """Returns the page.

    Args:
        root: the quickstart's folder, with the stages' runs.
        table: the final table, as `evals.report.table.build_table` returns it.
        models: the results of all evaluations.
        now: time of the page in Unix seconds; None for the current time.
    """
    rows = [Row(name, [*values]) for name, *values in map(cells, table["rows"])]
    seconds = table["seconds"]
    scaled = {
        STAGES[name]: {"tasks": {"cami": tasks["cami"]}}
        for name in STAGES
        if "cami" in (tasks := models[name]["tasks"])
    }
    return render(
        Path(__file__).with_name("page.html.jinja"),
        hover=True,
        made=format_time(now),
        disclaimer=DISCLAIMER,
        results=Table("Results by stage", [*HEADER[1:]], rows, [reward_model_sentence(table["reward_model"])]),
        charts=[_curve(root / stage, metric) for stage, metric in CURVES],
        stages=STAGES,
        answers=answers_of(models),
        attitudes=scale_plots("cami", scaled),
        compared=list(scaled),
        warnings=list(warnings(scaled)),
        times={part: format_seconds(value) for part, value in seconds.items()},
        total=format_seconds(sum(seconds.values())),
        memory=format_number(table["peak_memory_bytes"] / 2**30, unit="GiB"),
    )


def _curve(run: Path, metric: str) -> Chart:
    panel = panel_of(metric)
    assert panel is not None
    record = read_record(run)
    return curves_of(panel, [record.series[metric]], f"{TITLES[record.stage]}: {panel.title.lower()}")
