"""Builds an evaluation plan from the command line; rejects invalid input before a model is loaded."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.model_folder.compatibility import require_same_format
from actors.model_folder.folders import ModelFolder
from configs.errors import ConfigError
from data.chat import chat_format
from data.tables import DataError, table_files
from evals.models.subject import Settings
from evals.options import DEFAULT_DATA, files_of, named
from evals.tasks.benchmarks import BENCHMARKS, Benchmark
from evals.tasks.registry import TASKS, Task
from storage.durable import sha256
from storage.paths import require_dir, resolve

_SECONDS = ("--reward-model", "--reference", "--against")
_NO_TABLES = "make the sample clinic with python -m data.clinic"


@dataclass(frozen=True)
class Plan:
    """The models, tasks, data, and outputs of one evaluation."""

    models: Mapping[str, ModelFolder]
    """Models by name; empty if an endpoint is evaluated."""
    named: bool
    """Whether the user named the models; otherwise there is one model, named by its path."""
    endpoint: str | None
    endpoint_model: str | None
    tasks: Mapping[str, Any]
    """The rows or items of each task, in execution order."""
    files: Mapping[str, Mapping[str, str]]
    """SHA-256 of the files that each task reads, by path."""
    settings: Settings
    data: Path | None
    reward_model: ModelFolder | None
    reference: ModelFolder | None
    rival: ModelFolder | None
    output: Path | None
    markdown: Path | None
    html: Path | None

    def tasks_for(self, model: ModelFolder) -> list[str]:
        """Returns the names of the tasks that apply to a model: those for reward models or for language models."""
        return [name for name in self.tasks if _applies(name, model)]


def task_of(name: str) -> Task | Benchmark:
    """Returns a task or benchmark by its name."""
    return TASKS[name] if name in TASKS else BENCHMARKS[name]


def make_plan(options: argparse.Namespace) -> Plan:
    """Validates the options against each other and the files on disk, reads the data, and returns the plan.

    Raises:
        ConfigError: a folder is not a model, tasks and models are incompatible, or a required comparison model is
            missing.
        DataError: a table or file cannot be read or scored.
    """
    models, by_name = _models(options.model or [])
    second = {name: getattr(options, name.strip("-").replace("-", "_")) for name in _SECONDS}
    files = files_of(options.file)
    names = _task_names(options, models, second, list(files))
    _require_chat_formats(names, models)
    settings = _settings(options, names)
    _check_context(options, settings, [model for model in models.values() if not model.is_reward_model])
    outputs = {name: _output(name, getattr(options, name)) for name in ("json", "markdown", "html")}
    reward_model = ModelFolder(options.reward_model, "--reward-model") if options.reward_model else None
    if reward_model is not None and not reward_model.is_reward_model:
        raise ConfigError(
            f"--reward-model: {reward_model.path} has no scalar head; give a model trained with trainers.reward"
        )
    reference, rival = (_language_model(options, name) for name in ("reference", "against"))
    languages = [model for model in models.values() if not model.is_reward_model]
    _check_seconds(settings, languages, [other for other in (reward_model, reference, rival) if other is not None])
    needs_data = any(name in TASKS for name in names)
    data: Path | None = resolve(options.data)
    if needs_data or options.data != DEFAULT_DATA:
        data = require_dir(options.data, "--data", _NO_TABLES)
    items, digests = _read(names, data, files, options.limit, options.seed)
    for name in names:
        if name in BENCHMARKS:
            BENCHMARKS[name].check(items[name], settings)
    return Plan(
        models=models,
        named=by_name,
        endpoint=options.endpoint,
        endpoint_model=options.endpoint_model,
        tasks=items,
        files=digests,
        settings=settings,
        data=data,
        reward_model=reward_model,
        reference=reference,
        rival=rival,
        output=outputs["json"],
        markdown=outputs["markdown"],
        html=outputs["html"],
    )


def require_tasks(names: Sequence[str], data: str, most: int, setting: str) -> None:
    """Checks that a language model alone can run these tasks.

    Args:
        names: names of tasks and benchmarks.
        data: folder of the tasks' files.
        most: maximum number of items of each task.
        setting: name of the configuration key, for error messages.

    Raises:
        ConfigError: a task is unknown, is given twice, needs a comparison model, or evaluates reward models.
        DataError: a task's file cannot be read.
    """
    for name in names:
        _check_name(name, names, setting)
        if name in TASKS and (TASKS[name].needs or TASKS[name].of_reward_model):
            raise ConfigError(f"{setting}: {name} needs a reward model or a second model; run it with evals.run")
    folder = require_dir(data, f"{setting.partition('.')[0]}.data", _NO_TABLES)
    try:
        _read(names, folder, {}, most, 0)
    except DataError as error:
        raise DataError(f"{setting}: {error}") from error


def _settings(options: argparse.Namespace, names: Sequence[str]) -> Settings:
    tables = {name: min(TASKS[name].limit, options.limit or TASKS[name].limit) for name in names if name in TASKS}
    files = {name: options.limit for name in names if name in BENCHMARKS and options.limit}
    return Settings(
        seed=options.seed,
        limits={name: limit for name in names if (limit := {**tables, **files}.get(name))},
        open_tokens=options.response_tokens,
        sample_tokens=options.response_tokens,
        methods=options.methods,
        shots=options.shots,
        rotate=not options.no_rotation,
        every_turn=not options.last_turn,
        max_model_len=options.max_model_len,
        tensor_parallel_size=options.tensor_parallel_size,
        dtype=None if options.endpoint else options.dtype,
    )


def _check_context(options: argparse.Namespace, settings: Settings, models: Sequence[ModelFolder]) -> None:
    """Rejects a context that is longer than a model's or too short for a response, before an engine is loaded."""
    if options.endpoint and (options.max_model_len or options.dtype != "auto" or options.tensor_parallel_size > 1):
        raise ConfigError(
            "--max-model-len, --dtype, --tensor-parallel-size: cannot be used with --endpoint, only with --model; "
            "leave them out"
        )
    for model in models:
        context = settings.sizing.context(model)
        longest = max(settings.open_tokens, settings.sample_tokens)
        if longest >= context - 1:
            raise ConfigError(
                f"--response-tokens {longest}: leaves no room for a prompt in the context of {context} tokens; lower it, or "
                "raise --max-model-len"
            )


def _check_seconds(settings: Settings, models: Sequence[ModelFolder], others: Sequence[ModelFolder]) -> None:
    """Rejects comparison models (`others`) that cannot be compared with the evaluated models.

    A comparison model must have the vocabulary and chat format of every evaluated model, and at least the context
    length with which that model is evaluated.

    Args:
        settings: the settings that determine each evaluated model's context length.
        models: the evaluated language models.
        others: the models given with --reward-model, --reference, and --against.

    Raises:
        ConfigError: two models cannot be compared; the message names both folders.
    """
    for model in models:
        for other in others:
            require_same_format(model.path, model.tokenizer, other.path, other.tokenizer)
            context, own = other.context, settings.sizing.context(model)
            if context < own:
                raise ConfigError(
                    f"{other.path} takes {context} tokens, and {model.path} is evaluated with {own}; give --max-model-len "
                    f"{context}"
                )


def _read(
    names: Sequence[str], data: Path | None, files: Mapping[str, str], most: int | None, seed: int
) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
    """Returns the items of each task, and the SHA-256 of their files by path."""
    items: dict[str, Any] = {}
    digests: dict[str, dict[str, str]] = {}
    for name in names:
        if name in TASKS:
            task = TASKS[name]
            if data is None:
                raise RuntimeError(f"{name} was planned without a data folder")
            items[name] = task.read(data, min(task.limit, most or task.limit), seed)
            path = task.path(data)
            digests[name] = {str(file): sha256(file) for file in table_files(path)}
        else:
            benchmark = BENCHMARKS[name]
            given = resolve(files[name]) if name in files else None
            source = benchmark.source(data if data and data.is_dir() else None, given, name)
            items[name] = benchmark.read(source, most, seed)
            digests[name] = {str(source): sha256(source)} if source.is_file() else dict(items[name].files)
    return items, digests


def _require_chat_formats(names: Sequence[str], models: Mapping[str, ModelFolder]) -> None:
    """Rejects a model without a chat format if one of its tasks needs one, as all tasks except perplexity do."""
    for model in models.values():
        if any(_applies(name, model) and name != "perplexity" for name in names):
            chat_format(model.tokenizer)


def _output(name: str, given: str | None) -> Path | None:
    output = resolve(given) if given else None
    if output is not None and output.is_dir():
        raise ConfigError(f"--{name}={given}: is a folder; name a file")
    return output


def _language_model(options: argparse.Namespace, name: str) -> ModelFolder | None:
    given = getattr(options, name)
    folder = ModelFolder(given, f"--{name}") if given else None
    if folder is not None and folder.is_reward_model:
        raise ConfigError(f"--{name}: {folder.path} is a reward model; name a language model")
    return folder


def _models(given: Sequence[str]) -> tuple[dict[str, ModelFolder], bool]:
    if len(given) == 1 and not named(given[0]):
        return {given[0]: ModelFolder(given[0], "--model")}, False
    models: dict[str, ModelFolder] = {}
    for text in given:
        match = named(text)
        if not match:
            raise ConfigError(f"--model={text}: with several models, each needs a name; write --model NAME={text}")
        name, path = match.groups()
        if name in models:
            raise ConfigError(f"--model={text}: the name '{name}' is given twice; choose another")
        models[name] = ModelFolder(path, f"--model {name}")
    return models, True


def _task_names(
    options: argparse.Namespace,
    models: Mapping[str, ModelFolder],
    second: Mapping[str, str | None],
    files: Sequence[str],
) -> list[str]:
    """Returns the names of the tasks to run, after checking that the given models and options allow them.

    Without `--tasks`, these are every task on the sample clinic's tables that applies to one of the models and whose
    required options (`Task.needs`) are set; every benchmark that has a `--file`; and, with an endpoint, `cami` and
    `safety`.

    Args:
        options: the command line.
        models: the evaluated models by name; empty if an endpoint is evaluated.
        second: values of --reward-model, --reference, and --against by option; None if an option is not set.
        files: the benchmarks that have a `--file`.

    Raises:
        ConfigError: a task is unknown, is given twice, or cannot run with these models and options; or a file or a
            model is used by none of the tasks.
    """
    if options.tasks is None:
        able = [name for name, task in TASKS.items() if all(second[needed] for needed in task.needs)]
        names = [name for name in able if any(_applies(name, model) for model in models.values())] + list(files)
        names += [name for name in ("cami", "safety") if options.endpoint and name not in names]
    else:
        names = [name.strip() for name in options.tasks.split(",")]
    for name in names:
        _check_task(name, names, options, models, second)
    for name in files:
        if name not in names:
            raise ConfigError(f"--file {name}=...: --tasks does not name {name}; add it there")
    for label, model in models.items():
        if not any(_applies(name, model) for name in names):
            kind = "reward" if model.is_reward_model else "language"
            raise ConfigError(f"--model {label}: is a {kind} model, for which --tasks names no task")
    return names


def _check_name(name: str, names: Sequence[str], setting: str) -> None:
    if name not in TASKS and name not in BENCHMARKS:
        raise ConfigError(f"{setting}: there is no task '{name}'; choose from {', '.join([*TASKS, *BENCHMARKS])}")
    if names.count(name) > 1:
        raise ConfigError(f"{setting}: '{name}' is given twice; give it once")


def _check_task(
    name: str,
    names: Sequence[str],
    options: argparse.Namespace,
    models: Mapping[str, ModelFolder],
    second: Mapping[str, str | None],
) -> None:
    _check_name(name, names, "--tasks")
    for needed in TASKS[name].needs if name in TASKS else ():
        if not second[needed]:
            raise ConfigError(f"--tasks: {name} needs {needed} DIR; give it or leave the task out")
    if options.endpoint:
        if name in TASKS:
            raise ConfigError(
                f"--tasks: {name} needs a model's folder, not an endpoint; choose from {', '.join(BENCHMARKS)}"
            )
    elif not any(_applies(name, model) for model in models.values()):
        kind = "reward model" if name in TASKS and TASKS[name].of_reward_model else "language model"
        raise ConfigError(f"--tasks: {name} evaluates a {kind}, and none is given with --model")


def _applies(name: str, model: ModelFolder) -> bool:
    return (name in TASKS and TASKS[name].of_reward_model) == model.is_reward_model
