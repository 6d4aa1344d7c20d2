"""A fair lock: a loop that releases and reacquires it cannot starve other threads."""

from __future__ import annotations

from threading import Lock


class FairLock:
    """A lock that a waiting thread acquires before the thread that releases it can acquire it again.

    A plain lock guarantees no such order: a loop that releases and immediately reacquires it would starve other
    threads. The lock may be released by a thread other than the one that acquired it.
    """

    def __init__(self) -> None:
        self._next, self._turn = Lock(), Lock()

    def acquire(self) -> None:
        """Acquires the lock; blocks until it is free."""
        with self._next:
            self._turn.acquire()

    def release(self) -> None:
        """Releases the lock. Raises RuntimeError if it is not held."""
        self._turn.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()
