"""Measures time and memory of work on this device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def seconds_of(work: Callable[[], object], repetitions: int = 5) -> float:
    """Returns the median time of `repetitions` calls, in seconds, after a warm-up call; synchronizes with the GPU."""
    taken = []
    for _ in range(repetitions + 1):
        _synchronize()
        began = time.perf_counter()
        work()
        _synchronize()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


def peak_bytes_of(work: Callable[[], object]) -> int:
    """Returns the peak GPU memory of `work` in bytes, beyond that allocated before it; 0 on a CPU."""
    if not torch.cuda.is_available():
        work()
        return 0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
