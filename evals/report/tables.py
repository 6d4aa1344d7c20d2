"""The report's tables, for both Markdown and HTML: the user's results with published ones, and all metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from evals.tasks.benchmarks import BENCHMARKS
from evals.tasks.registry import TASKS
from reporting.formats import format_seconds
from reporting.tables import Row, Table

PUBLISHED = Path(__file__).with_name("published.yaml")

Results = Mapping[str, Mapping[str, Any]]
"""The results of `evals.run` for each model, by name."""

_TURN = {"ROUGE-1": "rouge_1", "ROUGE-2": "rouge_2", "ROUGE-L": "rouge_l"}
_SCRIPTED = {"BLEU-1 as scripted": "script_like_bleu_1", "BLEU-2 as scripted": "script_like_bleu_2"}
_RIGHT = {"BLEU-1": "bleu_1", "BLEU-2": "bleu_2", "chrF": "chrf"}
_SHARES = frozenset(_TURN.values())

_WHERE: dict[str, dict[str, tuple[str, ...]]] = {
    "ner": {"CCKS-2019": ("ccks", "f1")},
    "choice": {name: (name.lower().replace("-", ""), "accuracy") for name in ("C-Eval", "CMMLU", "MedQA")},
    **{
        task: {title: (task, "last_turn", key) for title, key in {**_SCRIPTED, **_TURN, **_RIGHT}.items()}
        for task in ("qa", "dialogue")
    },
}
"""The path of each column of a published table in the user's results; columns without published values come last."""


def comparisons(results: Results) -> list[Table]:
    """Returns the published tables for which the results have values: the user's rows, then the published ones."""
    published = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    tables = []
    for name, table in published["tables"].items():
        columns = list(dict.fromkeys([*table["columns"], *_WHERE[name]]))
        mine = [
            Row(model, [_percent(result, _WHERE[name].get(column)) for column in columns])
            for model, result in results.items()
        ]
        if all(cell == "" for row in mine for cell in row.cells):
            continue
        width = len(columns) - len(table["columns"])
        theirs = [
            Row(model, [f"{value:.2f}" for value in values] + [""] * width, published=True)
            for model, values in table["rows"].items()
        ]
        notes = [*table["differences"], f"Published rows: {published['source'].strip()}."]
        tables.append(Table(table["title"], columns, [*mine, *theirs], notes))
    return tables


def overview(results: Results) -> Table:
    """Returns the table of headline metrics, one column per task, with 95% intervals where available."""
    tasks = list(dict.fromkeys(task for result in results.values() for task in result["tasks"]))
    rows = []
    for model, result in results.items():
        cells = []
        for task in tasks:
            values = result["tasks"].get(task, {})
            cells.append(_with_interval(values, _headline(task)))
        rows.append(Row(model, cells))
    return Table("Overview", [f"{task}: {_headline(task)}" for task in tasks], rows)


def every_metric(task: str, results: Results) -> Table:
    """Returns all metrics of a task: one row per metric, one column per model."""
    found = {model: dict(_flat(result["tasks"].get(task, {}))) for model, result in results.items()}
    names = list(dict.fromkeys(name for values in found.values() for name in values))
    rows = [
        Row(name, [(format_seconds if name == "seconds" else _number)(values.get(name)) for values in found.values()])
        for name in names
    ]
    return Table(task, list(found), rows)


def warnings(results: Results) -> Iterator[str]:
    """Yields warnings about the validity of results; a warning that applies to several models is yielded once."""
    by_warning: dict[str, list[str]] = {}
    for model, result in results.items():
        for task, values in result["tasks"].items():
            for words in _warnings(task, values):
                by_warning.setdefault(words, []).append(model)
    for words, models in by_warning.items():
        yield f"{'all models' if 1 < len(models) == len(results) else ', '.join(models)}, {words}"


def _warnings(task: str, values: Mapping[str, Any]) -> Iterator[str]:
    for path, inner in _inner(values):
        if inner.get("favorite"):
            letter, share = max(inner["letters"].items(), key=lambda item: item[1])
            yield f"{task}{path}: chooses the letter {letter} in {share:.0%} of all rotations, regardless of the option there"
        if inner.get("no_answer"):
            count = inner["no_answer"]
            unanswered = f"{count:.0%} of the questions" if isinstance(count, float) else f"{count} questions"
            yield f"{task}{path}: no response to {unanswered}; these are scored as wrong or missing"
        if inner.get("dropped_examples"):
            yield f"{task}{path}: {inner['dropped_examples']} examples were left out, because they do not fit the context"
        if inner.get("not_asked"):
            yield f"{task}{path}: {inner['not_asked']} questions with several correct options were skipped by this method"
    for kind, count in values.get("faults", {}).get("counts", {}).items():
        yield f"{task}: {kind}: {count}"


def _inner(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield path, values
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _inner(value, f"{path} {key}")


def _flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{path}{key}"
        if key in ("faults", "titles", "scale"):
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif (
            value is None
            or isinstance(value, int | float)
            or (isinstance(value, list) and value and all(isinstance(item, int | float) for item in value))
        ):
            yield name, value


def _headline(task: str) -> str:
    return TASKS[task].headline if task in TASKS else BENCHMARKS[task].headline


def _with_interval(values: Mapping[str, Any], metric: str) -> str:
    if metric not in values:
        return ""
    interval = values.get(f"{metric}_interval")
    shown = f" [{fixed(interval[0], 3)}, {fixed(interval[1], 3)}]" if interval else ""
    return _number(values[metric]) + shown


def _percent(result: Mapping[str, Any], path: Sequence[str] | None) -> str:
    value: Any = result["tasks"] if path else None
    for key in path or ():
        value = value.get(key) if isinstance(value, Mapping) else None
    if value is None or not path:
        return ""
    share = path[-1] in _SHARES or path[-1] in ("f1", "accuracy")
    return fixed(value * 100 if share else value, 2)


def fixed(value: float, digits: int) -> str:
    """Formats a value with a fixed number of decimals, or as `not finite`."""
    return f"{value:,.{digits}f}" if math.isfinite(value) else "not finite"


def _number(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        return " – ".join(_number(item) for item in value)
    return f"{value:,}" if isinstance(value, int) else fixed(value, 4)


def speed(task: Mapping[str, Any]) -> str:
    """Returns a task's speed in items/s; empty if its time is unknown."""
    return f"{task['n'] / task['seconds']:.1f} items/s" if task.get("seconds") else ""


def markdown(table: Table) -> str:
    """Formats a table as Markdown; published rows are marked as such."""
    head = ["", *table.columns]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * len(table.columns)]
    for row in table.rows:
        name = f"*{row.name} (published)*" if row.published else f"**{row.name}**"
        lines.append("| " + " | ".join([name, *row.cells]) + " |")
    return "\n".join(lines + [f"\n- {note}" if place == 0 else f"- {note}" for place, note in enumerate(table.notes)])
