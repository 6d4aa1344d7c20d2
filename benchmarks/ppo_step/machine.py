"""What this machine can do at most, measured in the same run: multiply matrices, copy memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.ppo_step.workload import ARCHITECTURE

TOKENS = 4096  # of a micro-batch
REPETITIONS = 20


def matmul_flops(dtype: torch.dtype, threads: int) -> float:
    """Floating-point operations a second of the model's own largest matrix multiplication, forward and backward.

    Median over repetitions of a micro-batch through the feed-forward layer's matrix, its gradient with respect to the
    input, and that with respect to the matrix.
    """
    torch.set_num_threads(threads)
    inner, outer = ARCHITECTURE.hidden_size, ARCHITECTURE.intermediate_size
    inputs, weight = torch.randn(TOKENS, inner, dtype=dtype), torch.randn(outer, inner, dtype=dtype)
    outputs = torch.randn(TOKENS, outer, dtype=dtype)

    def multiply() -> None:
        torch.nn.functional.linear(inputs, weight)
        outputs @ weight
        outputs.T @ inputs

    return 3 * 2 * TOKENS * inner * outer / _seconds(multiply)


def copy_seconds(size: int, threads: int) -> float:
    """Seconds in which `size` bytes are copied from one place in memory to another; both have been touched before."""
    torch.set_num_threads(threads)
    source, target = torch.ones(size, dtype=torch.uint8), torch.ones(size, dtype=torch.uint8)
    return _seconds(lambda: target.copy_(source))


def _seconds(work: Callable[[], object]) -> float:
    work()
    taken = []
    for _ in range(REPETITIONS):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)
