"""How an engine on CPUs draws tokens: from the same distribution as vLLM's sampler, with far fewer random numbers a token."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def draw(
    logits: Tensor, generators: dict[int, torch.Generator], k: Tensor | None, p: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Tokens (rows,) and log-probabilities (rows, vocabulary; fp32) of `logits` (rows, vocabulary), filtered by top `k` and top `p`.

    Takes and gives what vLLM's `TopKTopPSampler` does for `processed_logprobs`; `logits` may change. Where every request
    has a seed, vLLM draws 8,192 numbers a token of a vocabulary of 4,096; here it is 128.
    """
    from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p

    logprobs = apply_top_k_top_p(logits, k, p).log_softmax(dim=-1, dtype=torch.float32)
    return race(logprobs.exp(), generators), logprobs


def race(probabilities: Tensor, generators: dict[int, torch.Generator]) -> Tensor:
    """One column of each row of `probabilities` (rows, columns; float), drawn with the row's own generator if it has one.

    An exponential random number divided by its column's probability is smallest for a column with just that probability,
    at one number a column. Here blocks of about √columns columns race first, by their sums, then the columns of the
    block that won: the same distribution with about 2·√columns numbers. To look for one uniform number in the
    cumulative sums would need fewer still, but what it finds moves with the last digits of all probabilities before
    it, which differ with the rows that are computed together.
    """
    rows, columns = probabilities.shape
    width = math.isqrt(columns - 1) + 1
    blocks = -(-columns // width)
    noise = probabilities.new_empty(rows, blocks + width)
    if len(generators) != rows:
        noise.exponential_()
    for row, generator in generators.items():
        noise[row].exponential_(generator=generator)
    heats = torch.nn.functional.pad(probabilities, (0, blocks * width - columns)).view(rows, blocks, width)
    block = (heats.sum(-1) / noise[:, :blocks]).argmax(-1)
    finalists = heats[torch.arange(rows, device=heats.device), block]
    return block * width + (finalists / noise[:, blocks:]).argmax(-1)
