"""Token log-probabilities and entropies from logits, with gradients, computed a few rows at a time.

Logits are the largest tensor of a training step. With whole-tensor operations, the softmax and its gradient each pass
over them several times. Here, on CPUs every piece stays in the cache until it is finished, and on GPUs each pass is one
compiled kernel. Shapes: N positions, V vocabulary, n rows of a piece.
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
    """Computes the log-probabilities of `targets` under softmax(logits / temperature), and that softmax's entropies.

    Args:
        logits: (N, V), any floating type.
        targets: token ids, (N,) int64.
        temperature: logits are divided by it.
        entropy: whether to compute entropies.

    Returns:
        Log-probabilities and entropies, (N,) fp32 each, in nats. Entropies are an empty tensor unless `entropy` is
        true.
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
        ctx.set_materialize_grads(False)  # the gradient of an unused result is None
        return logprobs, entropies

    @staticmethod
    def backward(
        ctx: Any, grad_logprobs: Tensor | None, grad_entropies: Tensor | None
    ) -> tuple[Tensor, None, None, None]:
        """Returns the gradient with respect to the logits.

        d logprob / d logit = (one-hot of the target - softmax) / temperature;
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
    """Returns the logarithms of the softmax's normalizers, (n,)."""
    return _scaled(logits, temperature).logsumexp(dim=-1)


def _entropies(logits: Tensor, temperature: float | Tensor, normalizers: Tensor) -> Tensor:
    """Returns the entropies of the softmax, (n,).

    They have a separate pass, so that log-probabilities are bit-identical with and without entropies.
    """
    scaled = _scaled(logits, temperature)
    return normalizers - (scaled.softmax(dim=-1) * scaled).sum(dim=-1)


def _slope(logits: Tensor, temperature: float | Tensor, normalizers: Tensor, *factors: Tensor) -> Tensor:
    """Returns the gradient without the one-hot term of the targets, (n, V) in the logits' dtype."""
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
    """Returns `function`, compiled on GPUs to minimize passes over its inputs."""
    if not logits.is_cuda:
        return function

    def call(piece: Tensor, temperature: float, *others: Any) -> Any:
        scale = 1.0 if temperature == 1.0 else torch.full((), temperature, device=piece.device)
        return _compiled(function)(piece, scale, *others)  # a tensor, because compiled code specializes on floats

    return call


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=True)


def _pieces(tensor: Tensor, logits: Tensor | None = None) -> tuple[Tensor, ...]:
    """Splits `tensor`, (N, ...), into pieces of n rows each.

    The n rows of `logits`, (N, V), have at most `PIECE_ELEMENTS` elements, unless n is 1. By default, `logits` is
    `tensor` itself.
    """
    logits = tensor if logits is None else logits
    rows = max(1, PIECE_ELEMENTS[logits.device.type] // logits.shape[1])
    return tensor.split(rows)
