"""Signs of life: a thread that says, every few seconds, that its process lives and how it is.

    with Heartbeat("ppo", "policy", rank=0):
        ...

It speaks through the notice board, for `python -m cluster.status`, and through metrics, for Prometheus. A process that
is stuck but lets Python's threads run still beats: what it does not do is finish steps, which the driver's notice shows.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from cluster import metrics
from cluster.liveness.registry import DRIVER, ProcessRecord, Progress, last_of, put_up, take_down, tidy
from cluster.memory import resident_bytes

SECONDS = 5.0
"""Between two beats when there is no news."""
_SECONDS_BETWEEN_NEWS = 1.0


class Heartbeat:
    """The pulse of one process of a run, once it has joined the cluster.

    Args:
        run: the run's name.
        role: what the process is to it.
        rank: which of the role's processes it is.
        version: tells the version of the weights that the process holds, if it holds any.
    """

    def __init__(self, run: str, role: str, rank: int, version: Callable[[], int | None] = lambda: None) -> None:
        self.notice = ProcessRecord.here(run, role, rank)
        self._version = version
        self._labels = {"run": run, "role": role, "rank": str(rank)}
        self._stopped = threading.Event()
        self._news = False
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> Self:
        """Begins to beat. A process that takes the place of another of the same job counts as started again."""
        before = last_of(self.notice.run, self.notice.role, self.notice.rank)
        if before is not None and before.job == self.notice.job:
            self.notice.restarts = before.restarts + 1
            metrics.RESTARTS.inc(**self._labels)
        self.beat()
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stops the thread."""
        self._stopped.set()
        self._thread.join(SECONDS)

    def beat(self) -> None:
        """One sign of life."""
        self.notice.resident_bytes = resident_bytes()
        self.notice.weights_version = self._version()
        metrics.HEARTBEAT.set(time.time(), **self._labels)
        metrics.RESIDENT.set(self.notice.resident_bytes, **self._labels)
        if self.notice.weights_version is not None:
            metrics.WEIGHTS_VERSION.set(self.notice.weights_version, **self._labels)
        put_up(self.notice)

    def _run(self) -> None:
        from ray.exceptions import RayError

        while not self._stopped.wait(_SECONDS_BETWEEN_NEWS):
            due = time.time() - self.notice.at >= SECONDS
            if due or self._news or self._version() != self.notice.weights_version:
                self._news = False
                with suppress(
                    RayError
                ):  # the head is silent: a missing beat is the news, and no reason to stop working
                    self.beat()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


class DriverHeartbeat(Heartbeat):
    """The pulse of a run's driver: also how far the run is, and how full the disk.

    When its `with` block is left well, the run's notices are taken down; otherwise they stay and say why it ended.

    Args:
        run: the run's name.
        stage: e.g. "ppo".
        folder: the run's, whose file system is watched.
    """

    def __init__(self, run: str, stage: str, folder: Path) -> None:
        super().__init__(run, DRIVER, 0)
        self._folder = folder
        self.progress = Progress(stage)
        self.notice.progress = self.progress

    def start(self) -> Self:
        """Starts the thread, after removing what earlier runs of the name left."""
        tidy()
        take_down(self.notice.run)
        return super().start()

    def plan(self, steps: int, done: int) -> None:
        """The run has `steps` steps, of which `done` were made before; says so within a second."""
        self.progress.steps, self.progress.step = steps, done
        self._news = True

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """Step `step` is done, with these figures; says so within a second."""
        progress = self.progress
        progress.step, progress.figures, progress.step_at = step, dict(figures), time.time()
        self._news = True

    def beat(self) -> None:
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
        with suppress(RayError):  # without its head there is no board, and what ended the run matters more
            if error is None:
                take_down(self.notice.run)
            else:
                text = " ".join(str(error).split())
                self.progress.state = (
                    "stopped"
                    if isinstance(error, SystemExit)
                    else f"failed: {type(error).__name__}: {text}"[:300].removesuffix(": ")
                )
                put_up(self.notice)
