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

logger = logging.getLogger(__name__)


class MetricsChannel:
    """Context manager that receives the ranks' metrics through a queue and logs them in a background thread.

    Entering the context returns the queue. Leaving it waits until everything sent has been logged, and then raises the
    first error: DivergedError if training diverged, or an exception raised by logging itself.

    Args:
        run: the run to which the metrics are logged.
        steps: number of optimizer steps of the whole stage.
        show: names of the metrics that the progress bar shows.
    """

    def __init__(self, run: Run, steps: int, show: tuple[str, ...]) -> None:
        self.run, self.steps, self.show = run, steps, show
        self.queue = Queue(actor_options={"num_cpus": 0})
        self._thread = threading.Thread(target=self._listen, name="mailbox", daemon=True)
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
                    self._receipts.put(done)
            self._progress.update(done, metrics)
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
        self._logged = 0

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
        assert self._receipts is not None, "`start` comes first"
        deadline = time.monotonic() + self._timeout_s
        while self._logged < step:
            try:
                self._logged = self._receipts.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                raise RunError(
                    f"the driver did not log step {step} within {self._timeout_s:.0f} s; raise "
                    "cluster.collective_timeout_s if the disk of runs/ is slow"
                ) from None
