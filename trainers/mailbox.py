"""News from the workers to the driver, while the driver waits for them."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from ray.util.queue import Queue

from trainers.progress import Progress
from trainers.run import Run


class Mailbox:
    """A context that logs what the ranks send, step by step, into `run`, in a thread of its own.

    Leaving it waits until everything sent has been logged. Then what went wrong is raised: DivergedError for a
    training that diverged, or what logging itself raised.
    """

    def __init__(self, run: Run, steps: int, show: tuple[str, ...]) -> None:
        self.run, self.steps, self.show = run, steps, show
        self.queue = Queue(actor_options={"num_cpus": 0})
        self._thread = threading.Thread(target=self._listen, name="mailbox", daemon=True)
        self._progress: Progress | None = None
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

    def _take(self, stack: ExitStack, kind: str, done: int, figures: dict[str, Any]) -> None:
        """Handles one message; see `trainers.rank.Send`."""
        if kind == "start":
            self.run.rewind(done)
            if self._progress is None:
                self._progress = stack.enter_context(self.run.progress(self.steps, done, self.show))
            else:
                print(f"{self.run.config.recipe_key}: workers were replaced; going on from step {done}", flush=True)
        elif kind == "step":
            self.run.log(done, figures)
            assert self._progress is not None  # every rank sends `start` first
            self._progress.update(done, figures)
        else:
            raise figures["error"]
