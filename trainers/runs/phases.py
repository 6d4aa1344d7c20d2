"""Seconds of each phase of a step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Phases:
    """`with phases("learn"): …` adds the block's wall-clock seconds to `seconds["learn"]`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start

    def metrics(self, tokens: float) -> dict[str, float]:
        """Seconds of each phase and of all, and how many of a step's `tokens` came to a second."""
        total = sum(self.seconds.values())
        seconds = {f"seconds_{phase}": value for phase, value in self.seconds.items()}
        return {"tokens_per_second": tokens / total, **seconds, "seconds": total}
