"""The quickstart's table of results by stage, as data (table.json) and as Markdown (table.md). Pure functions.

There is one row per stage, and the reward model's pairwise accuracy next to the accuracy of length alone:

    {"rows": [{"stage", "perplexity", "choice_accuracy", "ner_f1", "rouge_l", "reward_mean", "reward_std",
               "kl_to_sft"}],
     "reward_model": {"pairwise_accuracy", "length_baseline"}, "seconds": {stage: seconds}, "peak_memory_bytes"}
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from configs.errors import ConfigError

STAGES = {"random": "random weights", "pretrain": "pretrained", "sft": "SFT", "ppo": "PPO"}
"""The rows: stages and their display names."""

TIMED = ("pretrain", "sft", "reward", "ppo")
"""Stages whose time, in seconds, is required; the times of other stages are optional."""

# The (task, metric) of each column in the results of evals.run.
_COLUMNS = {
    "perplexity": ("perplexity", "perplexity"),
    "choice_accuracy": ("choice", "accuracy"),
    "ner_f1": ("ner", "f1"),
    "rouge_l": ("open", "rouge_l"),
    "reward_mean": ("reward", "mean"),
    "reward_std": ("reward", "std"),
    "kl_to_sft": ("kl", "per_sequence"),
}
_REWARD_MODEL = {"pairwise_accuracy": ("pairwise", "accuracy"), "length_baseline": ("pairwise", "length_baseline")}

HEADER = ("stage", "perplexity", "choice accuracy", "NER F1", "ROUGE-L", "reward", "KL to SFT")


def build_table(
    models: Mapping[str, Mapping[str, Any]], seconds: Mapping[str, float], peak_memory_bytes: int
) -> dict[str, Any]:
    """Builds and checks the table of one quickstart.

    Args:
        models: the `models` of `evals.run`'s JSON: random, pretrain, sft, ppo, and the reward model as `reward`.
        seconds: wall-clock time of each stage, in seconds.
        peak_memory_bytes: peak of the total memory of all processes, in bytes.

    Raises:
        ConfigError: a value is missing or invalid; the message names it.
    """
    table = {
        "rows": [{"stage": stage, **_pick(models, stage, _COLUMNS)} for stage in STAGES],
        "reward_model": _pick(models, "reward", _REWARD_MODEL),
        "seconds": dict(seconds),
        "peak_memory_bytes": peak_memory_bytes,
    }
    check_table(table)
    return table


def check_table(table: Mapping[str, Any]) -> None:
    """Checks a table against the format in this module's docstring.

    Raises:
        ConfigError: a key is missing or unknown, or a value is not a finite number.
    """
    _check_keys(table, ("rows", "reward_model", "seconds", "peak_memory_bytes"), "table")
    found = [row.get("stage") for row in table["rows"]]
    if found != list(STAGES):
        raise ConfigError(f"table.rows: the stages are {found}; they must be {list(STAGES)}")
    for row in table["rows"]:
        _check_keys(row, ("stage", *_COLUMNS), f"table.rows.{row['stage']}")
        _check_numbers({key: row[key] for key in _COLUMNS}, f"table.rows.{row['stage']}")
    _check_keys(table["reward_model"], tuple(_REWARD_MODEL), "table.reward_model")
    _check_numbers(table["reward_model"], "table.reward_model")
    _check_keys(table["seconds"], (*TIMED, *(key for key in table["seconds"] if key not in TIMED)), "table.seconds")
    _check_numbers(table["seconds"], "table.seconds")
    _check_numbers({"peak_memory_bytes": table["peak_memory_bytes"]}, "table")


def partial_markdown(models: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the table of the results so far as Markdown; what was not measured yet is left empty.

    Args:
        models: the `models` of `evals.run`'s JSON for the stages that are finished.
    """
    found = {name: models[name]["tasks"] for name in STAGES if name in models}
    rows = [
        {"stage": name, **{column: tasks.get(task, {}).get(metric) for column, (task, metric) in _COLUMNS.items()}}
        for name, tasks in found.items()
    ]
    lines = _aligned([HEADER, *map(cells, rows)])
    if "reward" in models:
        lines += ["", reward_model_sentence(_pick(models, "reward", _REWARD_MODEL))]
    return "\n".join([*lines, ""])


def to_markdown(table: Mapping[str, Any]) -> str:
    """Returns the table as Markdown, with aligned columns so that it is readable as plain text."""
    rows = [HEADER, *map(cells, table["rows"])]
    seconds = table["seconds"]
    spent = ", ".join(f"{stage} {value:.0f} s" for stage, value in seconds.items())
    return "\n".join(
        [
            *_aligned(rows),
            "",
            reward_model_sentence(table["reward_model"]),
            f"Time: {spent}; {sum(seconds.values()):.0f} s in total. "
            f"Peak memory of all processes: {table['peak_memory_bytes'] / 2**30:.1f} GiB.",
            "",
        ]
    )


def _pick(
    models: Mapping[str, Mapping[str, Any]], name: str, columns: Mapping[str, tuple[str, str]]
) -> dict[str, float]:
    if name not in models:
        raise ConfigError(f"there are no results of a model named '{name}'; evaluate it with --model {name}=DIR")
    tasks = models[name]["tasks"]
    for task, metric in columns.values():
        if metric not in tasks.get(task, {}):
            raise ConfigError(f"the results of '{name}' have no {task}.{metric}; evaluate it with the task {task}")
    return {column: tasks[task][metric] for column, (task, metric) in columns.items()}


def _check_keys(found: Mapping[str, Any], wanted: Sequence[str], where: str) -> None:
    for key in wanted:
        if key not in found:
            raise ConfigError(f"{where}: {key} is missing")
    for key in found:
        if key not in wanted:
            raise ConfigError(f"{where}: {key} is not an allowed key")


def _check_numbers(values: Mapping[str, Any], where: str) -> None:
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ConfigError(f"{where}: {key} is {value!r}; it must be a finite number")


def reward_model_sentence(model: Mapping[str, float]) -> str:
    """Returns the reward model's results, the table's `reward_model`, as a sentence."""
    return (
        f"Reward model: {model['pairwise_accuracy']:.3f} accuracy on held-out pairs; "
        f"by length alone: {model['length_baseline']:.3f}."
    )


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the texts of a row under `HEADER`; a value that is None is left empty."""
    reward, spread = row["reward_mean"], row["reward_std"]
    return (
        STAGES[row["stage"]],
        _number(row["perplexity"], ",.2f"),
        *(_number(row[key], ".3f") for key in ("choice_accuracy", "ner_f1", "rouge_l")),
        "" if reward is None else f"{reward:.2f} ± {spread:.2f}",
        _number(row["kl_to_sft"], ".2f"),
    )


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a Markdown table with the first column left-aligned and the others right-aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| "
        + " | ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        + " |"
        for row in rows
    ]
    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return [lines[0], rule, *lines[1:]]
