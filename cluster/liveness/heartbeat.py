"""Heartbeats: a thread that reports, every few seconds, that its process is alive, and its memory and weights version.

    with Heartbeat("ppo", "policy", rank=0):
        ...

It writes to the process registry, for `python -m cluster.status`, and to metrics, for Prometheus. A process that is
stuck while Python's threads still run keeps sending heartbeats, but it does not finish steps, which the driver's record
shows.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from cluster import metrics
from cluster.liveness.registry import DRIVER, ProcessRecord, Progress, read_record, tidy, unregister_run, write_record
from cluster.memory import resident_bytes
from cluster.polling import PollingThread

SECONDS = 5.0
"""Interval between two heartbeats if nothing changes."""
_SECONDS_BETWEEN_NEWS = 1.0


class Heartbeat(PollingThread):
    """The heartbeat of one process of a run, which must have joined the cluster.

    Args:
        run: the run's name.
        role: the process's role in the run.
        rank: the process's rank in its role.
        version: returns the version of the weights that the process holds, or None if it holds none.
    """

    def __init__(self, run: str, role: str, rank: int, version: Callable[[], int | None] = lambda: None) -> None:
        super().__init__("heartbeat", _SECONDS_BETWEEN_NEWS, stop_timeout_s=SECONDS)
        self.notice = ProcessRecord.here(run, role, rank)
        self._version = version
        self._labels = {"run": run, "role": role, "rank": str(rank)}
        self._news = False

    def start(self) -> Self:
        """Starts the thread. A process that replaces one of the same job, role, and rank counts as a restart."""
        before = read_record(self.notice.run, self.notice.role, self.notice.rank)
        if before is not None and before.job == self.notice.job:
            self.notice.restarts = before.restarts + 1
            metrics.RESTARTS.inc(**self._labels)
        self.beat()
        return super().start()

    def beat(self) -> None:
        """Sends one heartbeat. Raises RayError if the head does not respond."""
        self.notice.resident_bytes = resident_bytes()
        self.notice.weights_version = self._version()
        metrics.HEARTBEAT.set(time.time(), **self._labels)
        metrics.RESIDENT.set(self.notice.resident_bytes, **self._labels)
        if self.notice.weights_version is not None:
            metrics.WEIGHTS_VERSION.set(self.notice.weights_version, **self._labels)
        write_record(self.notice)

    def poll(self) -> None:
        """Sends a heartbeat if one is due, or if progress or the version has changed."""
        from ray.exceptions import RayError

        due = time.time() - self.notice.at >= SECONDS
        if due or self._news or self._version() != self.notice.weights_version:
            self._news = False
            with suppress(
                RayError
            ):  # the process keeps working if the head does not respond; watchers notice the missing heartbeat
                self.beat()


class DriverHeartbeat(Heartbeat):
    """The heartbeat of a run's driver, which also reports the run's progress and the free disk space.

    If the `with` block ends without an exception, the run's records are removed; otherwise they stay, and the driver's
    record states why the run ended.

    Args:
        run: the run's name.
        stage: the stage's name, e.g. "ppo".
        folder: the run's folder; its file system's free space is reported.
    """

    def __init__(self, run: str, stage: str, folder: Path) -> None:
        super().__init__(run, DRIVER, 0)
        self._folder = folder
        self.progress = Progress(stage)
        self.notice.progress = self.progress

    def start(self) -> Self:
        """Removes records of earlier runs of this name and records older than a day, then starts the thread."""
        tidy()
        unregister_run(self.notice.run)
        return super().start()

    def plan(self, steps: int, done: int) -> None:
        """Reports within a second that the run has `steps` steps, of which `done` are already done."""
        self.progress.steps, self.progress.step = steps, done
        self._news = True

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """Reports within a second that step `step` is done.

        Args:
            step: number of steps done.
            figures: the step's metrics by name.
        """
        progress = self.progress
        progress.step, progress.figures, progress.step_at = step, dict(figures), time.time()
        self._news = True

    def beat(self) -> None:
        """Sends one heartbeat, with the run's progress and disk space."""
        run, progress, disk = self.notice.run, self.progress, shutil.disk_usage(self._folder)
        metrics.RUNS_FREE.set(disk.free, run=run)
        metrics.RUNS_SIZE.set(disk.total, run=run)
        metrics.STEP_TIMESTAMP.set(progress.step_at, run=run)
        if progress.steps is not None:
            metrics.STEPS_PLANNED.set(progress.steps, run=run)
        metrics.record_logged(run, progress.step, progress.figures)
        super().beat()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        from ray.exceptions import RayError

        self.stop()
        with suppress(RayError):  # without the head there is no registry, and the error that ended the run matters more
            if error is None:
                unregister_run(self.notice.run)
            else:
                text = " ".join(str(error).split())
                self.progress.state = (
                    "stopped"
                    if isinstance(error, SystemExit)
                    else f"failed: {type(error).__name__}: {text}"[:300].removesuffix(": ")
                )
                write_record(self.notice)
