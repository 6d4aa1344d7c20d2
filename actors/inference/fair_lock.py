"""Turns: a lock that a busy loop cannot keep from others."""

from __future__ import annotations

from threading import Lock


class Turns:
    """One thread has the turn. Whoever asks meanwhile is next, before the thread that had it can take it again.

    A plain lock promises no such order: a loop that gives it back and takes it at once would starve everybody else.
    Another thread than the taker may give the turn back.
    """

    def __init__(self) -> None:
        self._next, self._turn = Lock(), Lock()

    def take(self) -> None:
        """Waits for the turn and takes it."""
        with self._next:
            self._turn.acquire()

    def give(self) -> None:
        """Gives the turn back. Raises RuntimeError when nobody has it."""
        self._turn.release()

    def __enter__(self) -> None:
        self.take()

    def __exit__(self, *_: object) -> None:
        self.give()
