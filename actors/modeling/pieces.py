"""Log-probabilities computed one piece of the rows at a time, without all logits in memory at once.

If the output head is trained, the backward pass recomputes each piece's logits. If it is frozen, as with LoRA, a row's
gradient is the incoming gradient times the derivative of its log-probability, so the derivatives are computed in the
forward pass while the logits exist. Shapes: N rows, n rows of a piece, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from actors.modeling.logprobs import token_logprobs

Head = Callable[[Tensor], Tensor]
"""Maps last hidden states, (n, hidden), to logits, (n, V)."""


def logprobs_in_pieces(
    head: Head, hidden: Tensor, targets: Tensor, temperature: float, entropy: bool, pieces: int, frozen: bool
) -> tuple[Tensor, Tensor]:
    """Computes `token_logprobs` of all rows' logits: log-probabilities and entropies, (N,) fp32 each, in nats.

    Args:
        head: computes the logits of some rows.
        hidden: last hidden states, (N, hidden).
        targets: token ids, (N,).
        temperature: logits are divided by it.
        entropy: whether to compute entropies; otherwise they are an empty tensor.
        pieces: number of pieces to split the rows into.
        frozen: whether no parameter of `head` is trained.
    """

    def of_piece(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return token_logprobs(head(hidden), targets, temperature, entropy)

    found = []
    for piece in zip(hidden.tensor_split(pieces), targets.tensor_split(pieces), strict=True):
        if not hidden.requires_grad:
            found.append(of_piece(*piece))
        elif frozen and not entropy:
            found.append((_with_derivatives(of_piece, *piece), hidden.new_empty(0)))
        else:
            found.append(checkpoint(of_piece, *piece, use_reentrant=False))
    logprobs, entropies = (torch.cat(parts) for parts in zip(*found, strict=True))
    return logprobs, entropies


def _with_derivatives(
    of_piece: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], hidden: Tensor, targets: Tensor
) -> Tensor:
    rows = hidden.detach().requires_grad_()
    logprobs, _ = of_piece(rows, targets)
    (derivatives,) = torch.autograd.grad(logprobs.sum(), rows)  # no row's log-probability depends on another row
    result: Tensor = _KnownDerivatives.apply(hidden, logprobs.detach(), derivatives)
    return result


class _KnownDerivatives(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, logprobs: Tensor, derivatives: Tensor) -> Tensor:
        ctx.save_for_backward(derivatives)
        return logprobs.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (derivatives,) = ctx.saved_tensors
        return (gradient[:, None] * derivatives).to(derivatives.dtype), None, None
