"""Reads a run's folder: its settings, its progress, and every metric as a series of steps and values."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from configs.errors import ConfigError
from configs.recipe import read_recipe, short
from reporting.curves import Series
from trainers.runs.folder import read_metrics

LARGEST = 1e100
"""Larger values count as infinite, and values below 1/`LARGEST` as 0, so that no sum, difference, or ratio overflows."""

_YEAR_10000 = 253_402_300_800  # in Unix seconds; later times cannot be formatted
_NO_METRICS = ("step", "time")


@dataclass(frozen=True)
class Record:
    """The content of a run's folder.

    Attributes:
        name, stage: name and stage of the run, according to its settings.
        settings: the text of config.yaml.
        values: the settings of the stage.
        finished: whether the stage is finished.
        steps, times: step and time of every line of metrics; times are in Unix seconds, or None for a line without one.
        planned: number of steps of the whole stage; None if not known yet.
        series: every metric by name, in order of first appearance.
        notes: anomalies in the metrics, one sentence each.
    """

    folder: Path
    name: str
    stage: str
    settings: str
    values: dict[str, Any]
    finished: bool
    steps: list[int]
    times: list[float | None]
    planned: int | None
    series: dict[str, Series]
    notes: list[str]

    @property
    def began(self) -> float | None:
        """Time of the first line of metrics that has one, in Unix seconds; None if no line has one."""
        return next((moment for moment in self.times if moment is not None), None)

    @property
    def ended(self) -> float | None:
        """Time of the last line of metrics that has one, in Unix seconds; None if no line has one."""
        return next((moment for moment in reversed(self.times) if moment is not None), None)

    def state(self, now: float | None = None) -> str:
        """Returns `finished`, `no step yet`, `running`, or `stopped`.

        A run counts as stopped if it has logged nothing for ten minutes plus five times its median step time, as in the
        alert ChimedStepStalled.
        """
        if self.finished:
            return "finished"
        if self.ended is None:
            return "running" if self.steps else "no step yet"
        known = [moment for moment in self.times if moment is not None]
        usual = statistics.median([after - before for before, after in pairwise(known)] or [0.0])
        silent = (time.time() if now is None else now) - self.ended
        return "stopped" if silent > 600 + 5 * usual else "running"


def read_record(folder: Path) -> Record:
    """Reads the folder of a run, which may still be running.

    Raises:
        ConfigError: the folder is not a run's folder, or a line of its metrics is invalid.
    """
    settings = folder / "config.yaml"
    if not settings.is_file():
        raise ConfigError(f"{folder}: is not the folder of a run, because it has no config.yaml; give runs/NAME")
    recipe = read_recipe(settings, str(settings))
    stages = [key for key, value in recipe.values.items() if isinstance(value, dict)]
    if len(stages) != 1:
        raise ConfigError(
            f"{settings}: has {', '.join(stages) or 'no stage'}; the settings of a run are of exactly one stage"
        )
    stage = stages[0]
    values = recipe.values[stage]
    lines, notes = _lines(folder)
    series = _series(lines, notes)
    finished = (folder / "DONE").exists()
    return Record(
        folder=folder,
        name=str(values.get("name", folder.name)),
        stage=stage,
        settings=settings.read_text(encoding="utf-8"),
        values=values,
        finished=finished,
        steps=[line["step"] for line in lines],
        times=[_moment(line.get("time")) for line in lines],
        planned=lines[-1]["step"] if finished and lines else _planned(values, lines),
        series=series,
        notes=notes,
    )


def _lines(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns the lines of metrics by ascending step, and notes on anomalies."""
    path, by_step, twice = folder / "metrics.jsonl", dict[int, dict[str, Any]](), set[int]()
    try:
        for number, line in enumerate(read_metrics(folder), start=1):
            step = line.get("step") if isinstance(line, dict) else None
            if not isinstance(step, int) or isinstance(step, bool):
                raise ConfigError(f"{path}:{number}: must be a mapping with a whole number as step, not {short(line)}")
            if step in by_step:
                twice.add(step)
            by_step[step] = line
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text; repair or remove it") from error
    notes = (
        [f"Steps logged more than once, of which the last line counts: {_spans(sorted(twice), list(by_step))}."]
        if twice
        else []
    )
    return [by_step[step] for step in sorted(by_step)], notes


def _series(lines: list[dict[str, Any]], notes: list[str]) -> dict[str, Series]:
    """Returns every metric by name; adds notes on values that are not numbers or not finite to `notes`."""
    series: dict[str, Series] = {}
    odd: dict[str, Any] = {}
    for line in lines:
        for name, value in line.items():
            if name in _NO_METRICS:
                continue
            if value is not None and not isinstance(value, int | float):
                odd.setdefault(name, value)
                continue
            one = series.setdefault(name, Series(name))
            one.steps.append(line["step"])
            one.values.append(_number(value))
    for name, value in odd.items():
        notes.append(f"{name} has values that are not numbers (first {short(value)}); see metrics.jsonl.")
    for one in series.values():
        missing = [step for step, value in zip(one.steps, one.values, strict=True) if value is None]
        if missing:
            notes.append(f"{one.name} is NaN or infinite at {_spans(missing, one.steps)}.")
    return series


def _planned(values: dict[str, Any], lines: list[dict[str, Any]]) -> int | None:
    """Returns the number of steps of the whole stage; None if unknown.

    PPO has a setting for it; for supervised stages, it is extrapolated from the completed epochs.
    """
    if isinstance(steps := values.get("steps"), int):
        return steps
    most, epochs = values.get("max_steps"), values.get("epochs")
    done = _number(lines[-1].get("epoch")) if lines else None
    if done and done > 0 and isinstance(epochs, int | float):
        whole = round(epochs * lines[-1]["step"] / done)
        return min(whole, most) if isinstance(most, int) else whole
    return most if isinstance(most, int) else None


def _number(value: Any) -> float | None:
    """Returns a number as a finite float; None for any other value. Integers in JSON may be too large for a float."""
    if not isinstance(value, int | float) or not abs(value) < LARGEST:  # also true for NaN
        return None
    return float(value) if abs(value) * LARGEST > 1 else 0.0


def _moment(value: Any) -> float | None:
    """Returns Unix seconds, or None if they cannot be formatted as a date."""
    seconds = _number(value)
    return seconds if seconds is not None and 0 <= seconds < _YEAR_10000 else None


def _spans(steps: list[int], among: list[int]) -> str:
    """Formats steps as `step 3` or `steps 3 to 5, 9`; steps that are consecutive in `among` form a range."""
    place = {step: index for index, step in enumerate(among)}
    spans: list[list[int]] = []
    for step in steps:
        if spans and place[step] == place[spans[-1][-1]] + 1:
            spans[-1].append(step)
        else:
            spans.append([step])
    texts = [f"{span[0]} to {span[-1]}" if len(span) > 1 else str(span[0]) for span in spans]
    more = f" and {len(texts) - 8} more times" if len(texts) > 8 else ""
    return f"step{'s' if len(steps) > 1 else ''} {', '.join(texts[:8])}{more}"
