"""What this machine can do at most, measured in the same run: multiply matrices, copy memory."""

from __future__ import annotations

import torch

from actors.sizing.throughput import matmul_flops, median_seconds
from benchmarks.ppo_step.workload import ARCHITECTURE

TOKENS = 4096  # of a micro-batch


def feed_forward_flops(dtype: torch.dtype, threads: int) -> float:
    """Operations a second of a micro-batch through the model's own largest matrix, forward and both gradients."""
    torch.set_num_threads(threads)
    return matmul_flops(TOKENS, ARCHITECTURE.hidden_size, ARCHITECTURE.intermediate_size, dtype, "cpu")


def copy_seconds(size: int, threads: int) -> float:
    """Seconds in which `size` bytes are copied from one place in memory to another; both have been touched before."""
    torch.set_num_threads(threads)
    source, target = torch.ones(size, dtype=torch.uint8), torch.ones(size, dtype=torch.uint8)
    return median_seconds(lambda: target.copy_(source))
