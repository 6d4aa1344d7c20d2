"""Evaluation during training: every few steps, exports the weights and runs tasks of `evals.run` on them.

The tasks run in a separate process, which keeps its engine between evaluations; training waits for it. The results are
logged as metrics of the step and have no influence on the weights.
"""

from __future__ import annotations

import io
import logging
import math
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import ray

from cluster.environment import for_computing
from cluster.waiting import RoleDied, get
from configs.errors import RunError
from configs.logs import configure
from storage.paths import resolve
from trainers.config.supervised import EvaluationConfig

logger = logging.getLogger(__name__)

FOLDER = "evaluation"
_TRIES = 3


def check_tasks(config: EvaluationConfig | None) -> None:
    """Checks before training that the evaluation tasks can run on a model alone and that their files can be read.

    Raises:
        ConfigError: a task is unknown, is given twice, needs a comparison model, or evaluates reward models.
        DataError: a task's file cannot be read.
    """
    if config is not None:
        from evals.plan import require_tasks

        require_tasks(config.tasks, config.data, config.limit, "evaluation.tasks")


class Evaluator:
    """Runs evaluation tasks on the weights of a run every `config.every` steps.

    Args:
        config: the tasks and their settings; None for no evaluation.
        run: the run's folder.
        steps: number of steps of the whole run; the weights after the last step are always evaluated.
        timeout_s: time limit of one evaluation, in seconds.
    """

    def __init__(self, config: EvaluationConfig | None, run: Path, steps: int, timeout_s: float) -> None:
        self._config, self._run, self._steps, self._timeout_s = config, run, steps, timeout_s
        self._actor: Any = None

    def due(self, done: int) -> bool:
        """Returns whether the weights after `done` steps are to be evaluated."""
        return self._config is not None and (done % self._config.every == 0 or done == self._steps)

    def folder(self, done: int) -> Path:
        """Returns the folder that holds the weights after `done` steps during their evaluation."""
        return self._run / FOLDER / f"step-{done:08d}"

    def metrics(self, done: int, export: Callable[[Path], None]) -> dict[str, float]:
        """Evaluates the weights after `done` steps. Replaces the evaluation process if it dies.

        Args:
            done: number of completed steps.
            export: writes the weights to a folder, which is removed afterwards.

        Returns:
            The headline metric of every task as `eval/TASK_METRIC`; NaN if the task has no value for it.

        Raises:
            RunError: the evaluation process has died repeatedly.
            ConfigError: a task rejected its settings.
        """
        folder = self.folder(done)
        export(folder)
        try:
            return self._ask(folder, f"evaluation after step {done}")
        finally:
            shutil.rmtree(folder)

    def _ask(self, folder: Path, what: str) -> dict[str, float]:
        for left in reversed(range(_TRIES)):
            if self._actor is None:
                self._actor = self._start()
            try:
                found: dict[str, float] = get(self._actor.evaluate.remote(str(folder)), what, self._timeout_s)
                return found
            except RoleDied as error:
                ray.kill(self._actor)
                self._actor = None
                if not left:
                    raise RunError(
                        f"{error} ({_TRIES} times); see the log of the evaluation process, or remove `evaluation`"
                    ) from error
                logger.warning("%s; restarting the evaluation process", error)
        raise AssertionError("a try either returns or raises")

    def _start(self) -> Any:
        """Starts the evaluation process. It reserves no CPU, because training waits while it computes."""
        assert self._config is not None
        gpus = self._config.gpus
        return (
            ray.remote(_Evaluation)
            .options(
                num_cpus=0,
                num_gpus=gpus,
                runtime_env={"env_vars": for_computing(self._config.threads, gpus > 0, with_vllm=True)},
            )
            .remote(self._config.model_copy(update={"data": str(resolve(self._config.data))}))
        )


class _Evaluation:
    """Ray actor of the evaluation process: runs evaluations with one engine."""

    def __init__(self, config: EvaluationConfig) -> None:
        from evals.models.engine import Engine
        from evals.models.sizing import Sizing

        configure("evaluation")
        self._config = config
        self._engine = Engine(sizing=Sizing(config.max_model_len, config.dtype, "perplexity" in config.tasks))

    def evaluate(self, folder: str) -> dict[str, float]:
        """Returns the headline metric of every task. Keeps the progress output of evals out of the run's output."""
        from evals.options import parse
        from evals.plan import make_plan, task_of
        from evals.run import evaluate_model

        shown = io.StringIO()
        with redirect_stderr(shown):
            plan = make_plan(parse(_arguments(self._config, folder)))
            ((name, model),) = plan.models.items()
            results = evaluate_model(plan, name, model, self._engine, None)
        headlines = {task: task_of(task).headline for task in results}
        values = {f"eval/{task}_{metric}": results[task][metric] for task, metric in headlines.items()}
        return {name: math.nan if value is None else float(value) for name, value in values.items()}


def _arguments(config: EvaluationConfig, folder: str) -> list[str]:
    """Returns the arguments for `evals.run`: the cheapest protocol, since results only serve to compare steps."""
    return [
        *("--model", folder, "--tasks", ",".join(config.tasks), "--data", config.data),
        *("--limit", str(config.limit), "--shots", str(config.shots), "--methods", config.method),
        *("--no-rotation", "--last-turn"),
        *(("--max-model-len", str(config.max_model_len)) if config.max_model_len else ()),
        *("--dtype", config.dtype),
    ]
