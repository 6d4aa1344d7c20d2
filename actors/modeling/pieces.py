"""Log-probabilities without all logits in memory at once: one piece of the rows at a time.

Where the output head is trained, the backward pass recomputes each piece's logits. Where it is frozen, as with LoRA, a row's
gradient is the incoming gradient times its log-probability's derivative, so the derivatives are computed while the logits
are there. Shapes: N rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from actors.modeling.logprobs import token_logprobs

Head = Callable[[Tensor], Tensor]
"""Logits (n, V) of last hidden states (n, hidden)."""


def logprobs_in_pieces(
    head: Head, hidden: Tensor, targets: Tensor, temperature: float, entropy: bool, pieces: int, frozen: bool
) -> tuple[Tensor, Tensor]:
    """What `token_logprobs` gives of all rows' logits: log-probabilities of `targets` (N,) and entropies, both (N,) fp32.

    Args:
        hidden: last hidden states, (N, hidden).
        pieces: how many pieces the rows are cut into.
        frozen: whether nothing in `head` is trained.
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
