"""The metrics channel: sends metrics from the workers to the driver while they train, and acknowledgments back."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any

from ray.exceptions import RayActorError
from ray.util.queue import Empty, Queue

from configs.errors import RunError
from trainers.runs.folder import Run
from trainers.runs.progress import Progress
from trainers.runs.stopping import StopRequests

logger = logging.getLogger(__name__)


class MetricsChannel:
    """Context manager that receives the ranks' metrics through a queue and logs them in a background thread.

    Entering the context returns the queue. Leaving it waits until everything sent has been logged, and then raises the
    first error: DivergedError if training diverged, or an exception raised by logging itself. The acknowledgments that
    the first rank receives also say whether a stop was requested.

    Args:
        run: the run to which the metrics are logged.
        steps: number of optimizer steps of the whole stage.
        show: names of the metrics that the progress bar shows.
        stop: requests to stop the run.

    Attributes:
        stopped_at: the step after which the ranks saved a checkpoint and ended, if they did so.
    """

    def __init__(self, run: Run, steps: int, show: tuple[str, ...], stop: StopRequests) -> None:
        self.run, self.steps, self.show, self.stop = run, steps, show, stop
        self.stopped_at: int | None = None
        self.queue = Queue(actor_options={"num_cpus": 0})
        self._thread = threading.Thread(target=self._listen, name="metrics", daemon=True)
        self._progress: Progress | None = None
        self._receipts: Queue | None = None
        self._error: Exception | None = None

    def __enter__(self) -> Queue:
        self._thread.start()
        return self.queue

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.queue.put(None)
        self._thread.join()
        self.queue.shutdown()
        if self._error is not None:
            raise self._error from error

    def _listen(self) -> None:
        with ExitStack() as stack:
            while (message := self.queue.get()) is not None:
                try:
                    self._take(stack, *message)
                except Exception as error:  # noqa: BLE001 (raised when the context is left)
                    self._error = self._error or error

    def _take(self, stack: ExitStack, kind: str, done: int, metrics: dict[str, Any]) -> None:
        """Handles one message; see `trainers.supervised.rank.Send`."""
        if kind == "start":
            self._receipts = metrics["receipts"]
            self.run.rewind(done or -1)  # a run that starts over also repeats the evaluation logged as step 0
            if self._progress is None:
                logger.info("resuming from step %d of %d" if done else "starting at step %d of %d", done, self.steps)
                self._progress = stack.enter_context(self.run.progress(self.steps, done, self.show))
            else:
                logger.warning("workers were replaced; continuing from step %d", done)
        elif kind == "step":
            assert self._progress is not None  # the first rank sends `start` first
            assert self._receipts is not None
            try:
                self.run.log(done, metrics)
            finally:
                with suppress(RayActorError):  # the sender's process died; its replacement sends `start`
                    self._receipts.put((done, self.stop.requested))
            self._progress.update(done, metrics)
        elif kind == "stopped":
            self.stopped_at = done
        else:
            raise metrics["error"]


class Sender:
    """The first rank's end of a metrics channel. The driver logs steps asynchronously; `wait_logged` waits for it.

    Args:
        queue: the channel's queue.
        timeout_s: time limit of `wait_logged`, in seconds.
    """

    def __init__(self, queue: Queue, timeout_s: float) -> None:
        self._queue, self._timeout_s = queue, timeout_s
        self._receipts: Queue | None = None
        self._logged, self._stop_requested = 0, False

    def send(self, kind: str, done: int, metrics: dict[str, Any]) -> None:
        """Puts a message into the queue; see `trainers.supervised.rank.Send`."""
        if kind == "start":
            self._receipts = Queue(actor_options={"num_cpus": 0})
            self._logged, metrics = done, {**metrics, "receipts": self._receipts}
        self._queue.put((kind, done, metrics))

    def wait_logged(self, step: int) -> None:
        """Waits until the driver has logged `step` and, therefore, all steps before it.

        Raises:
            RunError: the driver did not log the step within `timeout_s` seconds.
        """
        deadline = time.monotonic() + self._timeout_s
        while self._logged < step:
            try:
                self._receive(max(0.0, deadline - time.monotonic()))
            except Empty:
                raise RunError(
                    f"the driver did not log step {step} within {self._timeout_s:.0f} s; raise "
                    "cluster.collective_timeout_s if the disk of runs/ is slow"
                ) from None

    def stop_requested(self) -> bool:
        """Returns whether the driver has announced a stop with one of the acknowledgments so far; does not wait."""
        with suppress(Empty):
            while self._receipts is not None:  # only the first rank has them
                self._receive(0.0)
        return self._stop_requested

    def _receive(self, timeout_s: float) -> None:
        assert self._receipts is not None, "`start` comes first"
        if timeout_s:
            self._logged, stop = self._receipts.get(timeout=timeout_s)
        else:
            self._logged, stop = self._receipts.get_nowait()
        self._stop_requested = self._stop_requested or stop
