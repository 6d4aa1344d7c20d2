"""Logging of this project's packages: one line per record on stderr, with the command's stage and run.

    17:20:31 WARNING ppo runs/demo: step 7: reward: add_columns: its process died; restarting reward (rank 0) ...

A module logs to `logging.getLogger(__name__)`; a command calls `configure` once. The root logger and the loggers of
other libraries are not changed.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LOGGERS = (
    "__main__",  # the module that `python -m` runs
    *("actors", "benchmarks", "cluster", "configs", "data", "evals", "serve", "storage", "trainers"),
)
"""The loggers that `configure` changes; the modules' loggers are their children."""


class _OneLine(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        return " ".join(super().formatMessage(record).splitlines())


class _Stderr(logging.Handler):
    """Writes records to the current `sys.stderr`, which a progress bar or a test may have replaced.

    `context` is shared by the whole process rather than a context variable, so that it also applies to records of
    threads that a command starts.
    """

    context = ""

    def emit(self, record: logging.LogRecord) -> None:
        record.context = self.context
        try:
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()
        except Exception:  # noqa: BLE001 - a handler reports its errors and never raises them
            self.handleError(record)


_handler = _Stderr()
_handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(context)s: %(message)s", "%H:%M:%S"))


def configure(stage: str, run: str | None = None) -> None:
    """Prints the records of this project's packages, from INFO up, on stderr. A repeated call changes the context.

    Args:
        stage: the stage of a training command (`ppo`) or the module of another command (`evals.run`); in a process that
            a command starts, its role and rank (`policy-0`) or its task (`download`).
        run: the run's name, without `runs/`; None outside a run.
    """
    _handler.context = _context(stage, run)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.addHandler(_handler)
        logger.propagate = False  # Ray Train gives the root logger of its workers a handler for stderr


@contextmanager
def logging_context(stage: str, run: str) -> Iterator[None]:
    """Replaces the stage and run of all records inside the block, for a stage that runs in another stage's command."""
    before, _handler.context = _handler.context, _context(stage, run)
    try:
        yield
    finally:
        _handler.context = before


def _context(stage: str, run: str | None) -> str:
    return stage if run is None else f"{stage} runs/{run}"
