"""Log-probabilities of tokens from logits, a few rows at a time: with their gradients, and with entropies.

A vocabulary's logits are the largest tensor of a training step. Written with whole-tensor operations, its softmax and
the softmax's gradient each pass over it several times. On CPUs every piece stays in the cache until it is done with; on
GPUs each pass is one compiled kernel. Shapes: N positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
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
        normalize, spread = _kernel(_normalizers, logits), _kernel(_entropies, logits)
        normalizers = torch.cat([normalize(piece, temperature) for piece in _pieces(logits)])
        entropies = normalizers.new_empty(0)
        if entropy:
            pieces = zip(_pieces(logits), _pieces(normalizers, logits), strict=True)
            entropies = torch.cat([spread(piece, temperature, own) for piece, own in pieces])
        logprobs = _scaled(logits.gather(1, targets[:, None]).squeeze(1), temperature) - normalizers
        ctx.save_for_backward(logits, targets, normalizers, entropies, logprobs)
        ctx.temperature = temperature
        ctx.set_materialize_grads(False)  # None for a result that has not been used
        return logprobs, entropies

    @staticmethod
    def backward(
        ctx: Any, grad_logprobs: Tensor | None, grad_entropies: Tensor | None
    ) -> tuple[Tensor, None, None, None]:
        """d logprob / d logit = (one-hot of the target - softmax) / temperature.

        d entropy / d logit = -softmax (log softmax + entropy) / temperature.
        """
        logits, targets, normalizers, entropies, logprobs = ctx.saved_tensors
        nothing = torch.zeros_like(normalizers)
        weights = nothing if grad_logprobs is None else grad_logprobs / ctx.temperature
        spread = (
            () if grad_entropies is None or not entropies.numel() else (grad_entropies / ctx.temperature, entropies)
        )
        gradient = torch.empty_like(logits)
        slope = _kernel(_slope, logits)
        for piece, out, normalizer, *more in zip(
            *(_pieces(column, logits) for column in (logits, gradient, normalizers, weights, *spread)), strict=True
        ):
            out.copy_(slope(piece, ctx.temperature, normalizer, *more))
        of_targets = logprobs.exp() * -_factor(logprobs, weights, *spread) + weights
        gradient.scatter_(1, targets[:, None], of_targets[:, None].to(gradient.dtype))
        return gradient, None, None, None


def _normalizers(logits: Tensor, temperature: float | Tensor) -> Tensor:
    """The logarithms of the softmax's sums, (n,)."""
    return _scaled(logits, temperature).logsumexp(dim=-1)


def _entropies(logits: Tensor, temperature: float | Tensor, normalizers: Tensor) -> Tensor:
    """The softmax's entropies, (n,). A separate pass, so that log-probabilities are bit-identical with and without it."""
    scaled = _scaled(logits, temperature)
    return normalizers - (scaled.softmax(dim=-1) * scaled).sum(dim=-1)


def _slope(logits: Tensor, temperature: float | Tensor, normalizers: Tensor, *factors: Tensor) -> Tensor:
    """The gradient but for what a row's target has more, (n, V) in the logits' type."""
    logsoftmax = torch.sub(_scaled(logits, temperature), normalizers[:, None])
    factor = _factor(logsoftmax, *(each[:, None] for each in factors))
    return logsoftmax.exp_().mul_(-factor).to(logits.dtype)


def _factor(logsoftmax: Tensor, weights: Tensor, *spread: Tensor) -> Tensor:
    if not spread:
        return weights
    slope, entropies = spread
    return weights + slope * (logsoftmax + entropies)


def _scaled(logits: Tensor, temperature: float | Tensor) -> Tensor:
    plain = isinstance(temperature, float) and temperature == 1.0
    return logits.float() if plain else logits.float() / temperature


def _kernel(function: Callable[..., Any], logits: Tensor) -> Callable[..., Any]:
    """`function`, on GPUs compiled into as few passes over its inputs as it can be."""
    if not logits.is_cuda:
        return function

    def call(piece: Tensor, temperature: float, *others: Any) -> Any:
        scale = 1.0 if temperature == 1.0 else torch.full((), temperature, device=piece.device)
        return _compiled(function)(piece, scale, *others)  # as a tensor: compiled code takes no changing floats

    return call


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=True)


def _pieces(tensor: Tensor, logits: Tensor | None = None) -> tuple[Tensor, ...]:
    """`tensor` in groups of rows such that so many rows of `logits` fit the cache."""
    logits = tensor if logits is None else logits
    rows = max(1, PIECE_ELEMENTS[logits.device.type] // logits.shape[1])
    return tensor.split(rows)
