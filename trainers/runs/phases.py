"""Measures the wall-clock time of each phase of a step, in seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Phases:
    """Timer of phases: `with phases("update"): …` adds the block's duration, in seconds, to `seconds["update"]`.

    Args:
        on_begin: functions that are called with a phase's name when it begins.
    """

    def __init__(self, *on_begin: Callable[[str], object]) -> None:
        self.seconds: dict[str, float] = {}
        self._on_begin = on_begin

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        for call in self._on_begin:
            call(name)
        start = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start

    def metrics(self, tokens: float) -> dict[str, float]:
        """Returns the time of each phase and their sum, in seconds, and the throughput of a step of `tokens` tokens."""
        total = sum(self.seconds.values())
        seconds = {f"seconds_{phase}": value for phase, value in self.seconds.items()}
        return {"tokens_per_second": tokens / total, **seconds, "seconds": total}
