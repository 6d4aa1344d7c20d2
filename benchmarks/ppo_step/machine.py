"""The machine's limits, measured in the same run: speed of matrix multiplication and of memory copies."""

from __future__ import annotations

import torch

from actors.sizing.throughput import matmul_flops, median_seconds
from benchmarks.ppo_step.workload import ARCHITECTURE

TOKENS = 4096  # tokens of a micro-batch


def feed_forward_flops(dtype: torch.dtype, threads: int) -> float:
    """Returns the floating-point operations per second of multiplying a micro-batch by the model's largest matrix.

    The gradients of both factors are included.
    """
    torch.set_num_threads(threads)
    return matmul_flops(TOKENS, ARCHITECTURE.hidden_size, ARCHITECTURE.intermediate_size, dtype, "cpu")


def copy_seconds(size: int, threads: int) -> float:
    """Returns the time to copy `size` bytes in memory, in seconds; source and target pages were touched before."""
    torch.set_num_threads(threads)
    source, target = torch.ones(size, dtype=torch.uint8), torch.ones(size, dtype=torch.uint8)
    return median_seconds(lambda: target.copy_(source))
