"""Log-probabilities of tokens from logits, a few rows at a time: with their gradients, and with entropies.

A vocabulary's logits are the largest tensor of a training step. Written with whole-tensor operations, its softmax and
the softmax's gradient each pass over it several times; here every piece stays in the cache until it is done with.
Shapes: N positions, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

PIECE_ELEMENTS = {"cpu": 2**19, "cuda": 2**26}  # 2 MiB of fp32, about a core's cache; on GPUs large enough to fill them


def token_logprobs(
    logits: Tensor, targets: Tensor, temperature: float = 1.0, entropy: bool = False
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of `targets` (N,) under softmax(logits / temperature), and that distribution's entropies.

    Logits are (N, V) of any floating type; both results are (N,) fp32. Entropies are an empty tensor unless asked for.
    """
    found: tuple[Tensor, Tensor] = _TokenLogprobs.apply(logits, targets, temperature, entropy)
    return found


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, temperature: float, entropy: bool) -> tuple[Tensor, Tensor]:
        normalisers, chosen, entropies = [], [], []
        for piece, wanted in zip(_pieces(logits), _pieces(targets, logits), strict=True):
            scaled = _scaled(piece, temperature)
            normaliser = scaled.logsumexp(dim=-1)
            normalisers.append(normaliser)
            chosen.append(scaled.gather(1, wanted[:, None]).squeeze(1) - normaliser)
            if entropy:
                entropies.append(normaliser - (scaled.softmax(dim=-1) * scaled).sum(dim=-1))
        logprobs = torch.cat(chosen)
        found = torch.cat(entropies) if entropy else logprobs.new_empty(0)
        ctx.save_for_backward(logits, targets, torch.cat(normalisers), found)
        ctx.temperature = temperature
        ctx.set_materialize_grads(False)  # None for a result that nobody has used
        return logprobs, found

    @staticmethod
    def backward(
        ctx: Any, grad_logprobs: Tensor | None, grad_entropies: Tensor | None
    ) -> tuple[Tensor, None, None, None]:
        """d logprob / d logit = (one-hot of the target - softmax) / temperature.

        d entropy / d logit = -softmax (log softmax + entropy) / temperature.
        """
        logits, targets, normalisers, entropies = ctx.saved_tensors
        nothing = torch.zeros_like(normalisers)
        weights = nothing if grad_logprobs is None else grad_logprobs / ctx.temperature
        spread = None if grad_entropies is None or not entropies.numel() else grad_entropies / ctx.temperature
        gradient = torch.empty_like(logits)
        columns = (logits, gradient, normalisers, weights, targets, *(() if spread is None else (spread, entropies)))
        for piece, out, normaliser, weight, wanted, *more in zip(*(_pieces(c, logits) for c in columns), strict=True):
            logsoftmax = torch.sub(_scaled(piece, ctx.temperature), normaliser[:, None])
            factor = weight[:, None]
            if more:
                factor = factor + more[0][:, None] * (logsoftmax + more[1][:, None])
            slope = logsoftmax.exp_().mul_(-factor)
            out.copy_(slope.scatter_add_(1, wanted[:, None], weight[:, None]))
        return gradient, None, None, None


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    return logits.float() if temperature == 1.0 else logits.float() / temperature


def _pieces(tensor: Tensor, logits: Tensor | None = None) -> tuple[Tensor, ...]:
    """`tensor` in groups of rows such that so many rows of `logits` fit the cache."""
    logits = tensor if logits is None else logits
    rows = max(1, PIECE_ELEMENTS[logits.device.type] // logits.shape[1])
    return tensor.split(rows)
