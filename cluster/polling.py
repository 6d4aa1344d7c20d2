"""A thread that does something every few seconds while a `with` block runs."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class PollingThread(ABC):
    """Base class of contexts that call `poll` every `seconds` in a daemon thread, from `start` to `stop`.

    The first call comes after `seconds`. An exception that `poll` raises is printed and ends the calls.

    Args:
        name: the thread's name, as debuggers show it.
        seconds: time between the end of a call and the next call.
        stop_timeout_s: how long `stop` waits for a call that is in progress; None waits until it ends.
    """

    def __init__(self, name: str, seconds: float, stop_timeout_s: float | None = None) -> None:
        self._seconds, self._stop_timeout_s = seconds, stop_timeout_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abstractmethod
    def poll(self) -> None:
        """Does the periodic work once. The thread calls this method."""

    def start(self) -> Self:
        """Starts the thread; can be called once."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stops the thread."""
        self._stopped.set()
        self._thread.join(self._stop_timeout_s)

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            self.poll()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
