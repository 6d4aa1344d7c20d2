"""Stop requests: Ctrl-C, SIGTERM (which `ray job stop` sends), or Ray's notice that a node will be preempted."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

from cluster.liveness.watch import Watch

logger = logging.getLogger(__name__)

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: not an error; the same command continues the run."""
INTERRUPTED = 130
"""The exit status that shells give a process that Ctrl-C ended; here, too, the same command continues the run."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_POLL_S = 2.0
_STOPPING = "%s: finishing or dropping the current step, then saving a checkpoint"
_AGAIN = "; press Ctrl-C again to end at once"


class Stopped(SystemExit):
    """Ends the process after a stop request, with EXIT_CODE, or INTERRUPTED after Ctrl-C."""

    def __init__(self, reason: str) -> None:
        super().__init__(INTERRUPTED if reason == signal.SIGINT.name else EXIT_CODE)
        self.reason = reason


class StopRequests:
    """Listens for stop requests inside its `with` block, which must run in the main thread.

    The training loop decides where a request takes effect: in `check`, or anywhere within `may_interrupt`. A second
    Ctrl-C ends the process at once.
    """

    def __init__(self) -> None:
        self._reason = ""
        self._may_interrupt = self._raised = False
        self._ended = threading.Event()

    @property
    def requested(self) -> bool:
        """Whether a stop was requested."""
        return bool(self._reason)

    def check(self) -> None:
        """Raises Stopped if a stop was requested."""
        if self._reason:
            raise Stopped(self._reason)

    @contextmanager
    def may_interrupt(self) -> Iterator[None]:
        """Lets a stop request raise Stopped anywhere inside the block, for work that can be interrupted anywhere."""
        self._may_interrupt, self._raised = True, False
        try:
            self.check()
            yield
        except SystemExit as error:
            if not self._raised or isinstance(error, Stopped):
                raise
            raise Stopped(self._reason) from error  # Ray's calls raise SystemExit(1) in its place
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
        self._before = {number: signal.signal(number, self._heard) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heard(self, signum: int, frame: FrameType | None) -> None:
        if self._reason and signum == signal.SIGINT:
            os.write(sys.stderr.fileno(), b"interrupted again: ending without a checkpoint of the current step\n")
            os._exit(INTERRUPTED)  # local Ray processes end with this one
        if not self._reason:
            self._reason = signal.Signals(signum).name
            logger.info(_STOPPING + (_AGAIN if signum == signal.SIGINT else ""), self._reason)
        if self._may_interrupt:
            self._may_interrupt, self._raised = False, True  # one exception is enough
            raise Stopped(self._reason)

    def _look(self, watch: Watch) -> None:
        """Polls for nodes that are being drained, and sends SIGTERM to this process when it finds one."""
        while not self._ended.wait(_POLL_S):
            if leaving := watch.leaving():
                self._reason = f"Ray is draining node {leaving[:8]}, which this run uses"
                logger.info(_STOPPING, self._reason)
                os.kill(os.getpid(), signal.SIGTERM)
                return
