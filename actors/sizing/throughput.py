"""Utilization of a machine: floating-point operations (FLOPs) of training, and measured FLOP/s of a linear layer.

A multiply-add counts as two operations. Symbols: T tokens, M elements of a decoder's matrices; of a mixture of experts,
M counts only the experts that a token is routed to.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

from actors.sizing.shape import Shape

LEAST_REPETITIONS, MOST_REPETITIONS = 3, 20
ENOUGH_S = 0.3


def training_flops(shape: Shape, lengths: Sequence[int], predicted: int, frozen: bool = False) -> float:
    """Returns the FLOPs of training on sequences: one forward and one backward pass.

    The forward pass takes 2 M T operations in the matrices; 4 operations per layer and dimension of the heads for every
    pair of a token and one that it attends to; and the product with the output embedding for the predicted tokens. The
    backward pass takes twice that (Kaplan et al. 2020, section 2.1); in frozen matrices, which gradients only pass
    through, it takes as much as the forward pass. Recomputed activations do not count, as in Chowdhery et al. 2022,
    appendix B.

    Args:
        shape: shape of the model.
        lengths: number of tokens of each sequence.
        predicted: number of tokens that logits are computed for.
        frozen: whether the matrices are not trained, as with LoRA.
    """
    tokens = sum(lengths)
    pairs = sum(length * (length + 1) // 2 for length in lengths)
    matrices = 2.0 * shape.matrix_elements * tokens + 2.0 * shape.hidden * shape.vocab * predicted
    attention = 4.0 * shape.layers * shape.q * pairs
    return (2.0 if frozen else 3.0) * matrices + 3.0 * attention


def matmul_flops(tokens: int, inner: int, outer: int, dtype: torch.dtype, device: torch.device | str) -> float:
    """Returns the FLOP/s that this process achieves in the forward and backward pass of a linear layer.

    Multiplies inputs, (tokens, inner), by a weight, (outer, inner), and computes the gradients of both. The time is
    that of `median_seconds`.
    """
    inputs = torch.randn(tokens, inner, dtype=dtype, device=device)
    weight = torch.randn(outer, inner, dtype=dtype, device=device)
    outputs = torch.randn(tokens, outer, dtype=dtype, device=device)

    def multiply() -> None:
        torch.nn.functional.linear(inputs, weight)
        outputs @ weight
        outputs.T @ inputs

    return 3 * 2 * tokens * inner * outer / median_seconds(multiply)


def median_seconds(work: Callable[[], object]) -> float:
    """Returns the median duration of `work` in seconds, including its GPU kernels.

    After one warm-up call, repeats `work` 3 times, and then until 0.3 s have passed or 20 repetitions are measured.
    """
    _timed(work)
    taken: list[float] = []
    while len(taken) < LEAST_REPETITIONS or (len(taken) < MOST_REPETITIONS and sum(taken) < ENOUGH_S):
        taken.append(_timed(work))
    return statistics.median(taken)


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun
