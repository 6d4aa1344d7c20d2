"""Stop requests: SIGTERM, `ray job stop` (which sends SIGTERM), or Ray's notice that a node will be preempted."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

from cluster.liveness.watch import Watch

logger = logging.getLogger(__name__)

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: not an error; the same command continues the run."""
_POLL_S = 2.0
_STOPPING = "%s: finishing or dropping the current step, then saving a checkpoint"


class Stopped(SystemExit):
    """Ends the process with EXIT_CODE after a stop request."""

    def __init__(self, reason: str) -> None:
        super().__init__(EXIT_CODE)
        self.reason = reason


class StopRequests:
    """Listens for stop requests inside its `with` block, which must run in the main thread.

    The training loop decides where a request takes effect: in `check`, or anywhere inside `may_interrupt`.
    """

    def __init__(self) -> None:
        self._reason = ""
        self._may_interrupt = False
        self._ended = threading.Event()

    def check(self) -> None:
        """Raises Stopped if a stop was requested."""
        if self._reason:
            raise Stopped(self._reason)

    @contextmanager
    def may_interrupt(self) -> Iterator[None]:
        """Lets a stop request raise Stopped anywhere inside the block, for work that can be interrupted anywhere."""
        self._may_interrupt = True
        try:
            self.check()
            yield
        finally:
            self._may_interrupt = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Defers stop requests until the block ends, for work inside `may_interrupt` that must complete."""
        before, self._may_interrupt = self._may_interrupt, False
        try:
            yield
        finally:
            self._may_interrupt = before

    def watch_nodes(self, watch: Watch) -> None:
        """Starts to treat the draining of a node that the run or its driver uses as a stop request.

        Ray drains a node, for example, before a spot instance is reclaimed.
        """
        threading.Thread(target=self._look, args=(watch,), name="notices", daemon=True).start()

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGTERM, self._heard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        signal.signal(signal.SIGTERM, self._before)

    def _heard(self, signum: int, frame: FrameType | None) -> None:
        if not self._reason:
            self._reason = "SIGTERM"
            logger.info(_STOPPING, self._reason)
        if self._may_interrupt:
            self._may_interrupt = False  # one exception is enough
            raise Stopped(self._reason)

    def _look(self, watch: Watch) -> None:
        """Polls for nodes that are being drained, and sends SIGTERM to this process when it finds one."""
        while not self._ended.wait(_POLL_S):
            if leaving := watch.leaving():
                self._reason = f"Ray is draining node {leaving[:8]}, which this run uses"
                logger.info(_STOPPING, self._reason)
                os.kill(os.getpid(), signal.SIGTERM)
                return
