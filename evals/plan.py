"""From the command line to a plan: everything that can be refused is refused here, before a model is loaded."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.folders import ModelFolder
from cluster.paths import require_dir, resolve
from configs.recipe import ConfigError
from evals.subject import ANSWER_TOKENS, Row, Settings
from evals.tasks import TASKS, Task

PROG = "python -m evals.run"
DEFAULT_DATA = "runs/quickstart/clinic"


@dataclass(frozen=True)
class Plan:
    """What is to be done."""

    models: Mapping[str, ModelFolder]
    named: bool
    """Whether the user gave the models names; otherwise there is one, named by its path."""
    tasks: Mapping[str, Sequence[Row]]
    """The rows of each task, in the order in which the tasks are run."""
    settings: Settings
    data: Path
    reward_model: ModelFolder | None
    reference: ModelFolder | None
    output: Path | None

    def tasks_for(self, model: ModelFolder) -> list[str]:
        """Names of the tasks that apply to a model: those for reward models, or those for language models."""
        return [name for name in self.tasks if _applies(TASKS[name], model)]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options as given; `--help` and misspelt options leave the program as argparse does."""
    parser = argparse.ArgumentParser(prog=PROG, description="Evaluate models on held-out tables.", allow_abbrev=False)
    parser.add_argument(
        "--model", action="append", required=True, metavar="[NAME=]DIR",
        help="model folder in Hugging Face format; several, each with a name, share one engine",
    )  # fmt: skip
    parser.add_argument(
        "--tasks", metavar="A,B,...", help=f"some of {', '.join(TASKS)} (default: all that the options allow)"
    )
    parser.add_argument("--data", default=DEFAULT_DATA, metavar="DIR", help="held-out tables (default: %(default)s)")
    parser.add_argument("--reward-model", metavar="DIR", help="what the reward task scores answers with")
    parser.add_argument("--reference", metavar="DIR", help="the model that the kl task measures from, e.g. SFT")
    parser.add_argument("--limit", type=count, metavar="N", help="use at most N rows of each table")
    parser.add_argument(
        "--answer-tokens", type=count, default=ANSWER_TOKENS, metavar="N",
        help="longest answer to an open question or a prompt; give what your references need (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="chooses rows and samples answers (default: 0)"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the results there")
    return parser.parse_args(arguments)


def make_plan(options: argparse.Namespace) -> Plan:
    """Check the options against one another and the disk.

    Raises:
        ConfigError: a folder that is no model, tasks and models that do not go together, a second model missing.
        DataError: a table that cannot be read or scored.
    """
    models, named = _models(options.model)
    second = {"--reward-model": options.reward_model, "--reference": options.reference}
    names = _task_names(options.tasks, models, second)
    output = resolve(options.json) if options.json else None
    if output is not None and output.is_dir():
        raise ConfigError(f"--json={options.json}: is a folder; name a file")
    reward_model = ModelFolder(options.reward_model, "--reward-model") if options.reward_model else None
    if reward_model is not None and not reward_model.is_reward_model:
        raise ConfigError(f"--reward-model: {reward_model.path} has no scalar head; name one of trainers.reward")
    reference = ModelFolder(options.reference, "--reference") if options.reference else None
    if reference is not None and reference.is_reward_model:
        raise ConfigError(f"--reference: {reference.path} is a reward model; name a language model")
    data = require_dir(options.data, "--data", "make the sample clinic with python -m data.clinic")
    limits = {name: min(TASKS[name].limit, options.limit or TASKS[name].limit) for name in names}
    return Plan(
        models=models,
        named=named,
        tasks={name: TASKS[name].read(data, limits[name], options.seed) for name in names},
        settings=Settings(
            seed=options.seed,
            limits=limits,
            open_tokens=options.answer_tokens,
            sample_tokens=options.answer_tokens,
        ),
        data=data,
        reward_model=reward_model,
        reference=reference,
        output=output,
    )


def _models(given: Sequence[str]) -> tuple[dict[str, ModelFolder], bool]:
    if len(given) == 1 and not _named(given[0]):
        return {given[0]: ModelFolder(given[0], "--model")}, False
    models: dict[str, ModelFolder] = {}
    for text in given:
        match = _named(text)
        if not match:
            raise ConfigError(f"--model={text}: of several models each needs a name; write --model NAME={text}")
        name, path = match.groups()
        if name in models:
            raise ConfigError(f"--model={text}: the name '{name}' is given twice; choose another")
        models[name] = ModelFolder(path, f"--model {name}")
    return models, True


def _named(text: str) -> re.Match[str] | None:
    """NAME=DIR, told from a path that contains an equals sign by the name being a plain word."""
    return re.fullmatch(r"([A-Za-z0-9_.-]+)=(.+)", text)


def _task_names(given: str | None, models: Mapping[str, ModelFolder], second: Mapping[str, str | None]) -> list[str]:
    """The tasks to run. Without a list: all that some model can do with the second models at hand."""
    if given is None:
        able = [name for name, task in TASKS.items() if not task.needs or second[task.needs]]
        names = [name for name in able if any(_applies(TASKS[name], model) for model in models.values())]
    else:
        names = [name.strip() for name in given.split(",")]
    for name in names:
        if name not in TASKS:
            raise ConfigError(f"--tasks: there is no task '{name}'; choose from {', '.join(TASKS)}")
        if names.count(name) > 1:
            raise ConfigError(f"--tasks: '{name}' is given twice; give it once")
        needed = TASKS[name].needs
        if needed and not second[needed]:
            raise ConfigError(f"--tasks: {name} needs {needed} DIR; give it or leave the task out")
        if not any(_applies(TASKS[name], model) for model in models.values()):
            kind = "reward model" if TASKS[name].of_reward_model else "language model"
            raise ConfigError(f"--tasks: {name} evaluates a {kind}, and none is given with --model")
    for label, model in models.items():
        if not any(_applies(TASKS[name], model) for name in names):
            kind = "reward" if model.is_reward_model else "language"
            raise ConfigError(f"--model {label}: is a {kind} model, for which --tasks names no task")
    return names


def _applies(task: Task, model: ModelFolder) -> bool:
    return task.of_reward_model == model.is_reward_model


def count(text: str) -> int:
    """An option's value, at least 1. argparse calls it by this name in its messages, as `seed`."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, found {number}")
    return number


def seed(text: str) -> int:
    """An option's value, at least 0."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, found {number}")
    return number
