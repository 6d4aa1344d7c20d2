"""Attention on packed rows: causal inside each sequence, exact for windows, soft-capping, sinks, and grouped heads.

Registered with Transformers as the attention implementation `packed`. Every attention argument of a model is either
computed or rejected by name. Shapes: T tokens of all sequences, S sequences, H heads, H_kv key and value heads, D head
size, D_v head size of values, L tokens of one sequence. A run is a group of neighboring sequences of the same length.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface

from actors.modeling.packing import Packing

ATTENTION = "packed"

FUSED_DTYPES = (torch.bfloat16, torch.float16)
LARGEST_FUSED_HEAD = 256  # FlashAttention's limit
LONG_RUN = 2048  # mean tokens of a run from which one kernel call per run is faster than one call for all sequences
SCORE_ELEMENTS = 2**24  # scores in memory at a time where they are computed explicitly: 64 MiB in fp32

# Arguments that models pass to their attention and that do not affect its result.
_NO_ARITHMETIC = frozenset(
    {"cache_position", "output_attentions", "output_hidden_states", "output_router_logits", "position_ids", "use_cache"}
)


@dataclass(frozen=True)
class Scores:
    """How attention scores become weights; this differs between model families."""

    scaling: float
    window: int | None = None  # a token attends to itself and the window - 1 tokens before it
    softcap: float | None = None  # scores s become softcap * tanh(s / softcap)
    sinks: Tensor | None = None  # (H,): an extra score per head in the softmax, without a value
    dropout: float = 0.0

    @property
    def plain(self) -> bool:
        """Whether the weights are a plain softmax over scaled, masked scores."""
        return self.softcap is None and self.sinks is None


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,  # (1, H, T, D)
    key: Tensor,  # (1, H_kv, T, D)
    value: Tensor,  # (1, H_kv, T, D_v)
    attention_mask: Tensor | None,
    *,
    packing: Packing,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Computes attention inside each sequence of a packed row.

    On GPUs in half precision without dropout, one fused kernel computes all sequences: torch's variable-length
    FlashAttention, or FlexAttention if scores are soft-capped or have sinks. In all other cases, one call computes each
    run of neighboring sequences of the same length, so batches sorted by length need the fewest calls. Such calls also
    replace FlashAttention if the head size exceeds `LARGEST_FUSED_HEAD`, or if runs have at least `LONG_RUN` tokens on
    average and no sliding window applies. The result of a sequence does not depend on the others.

    Returns:
        The attention's output, (1, T, H, D_v), and None in place of the attention weights.

    Raises:
        ValueError: a mask is given, attention is not causal, or an argument is unknown.
    """
    if attention_mask is not None:
        raise ValueError("packed attention takes no mask: sequences are separated by their lengths")
    if is_causal is False or getattr(module, "is_causal", True) is False:
        raise ValueError("packed attention is causal; this model's attention looks ahead")
    if unknown := sorted(name for name, given in others.items() if given is not None and name not in _NO_ARITHMETIC):
        raise ValueError(f"packed attention does not know the argument {unknown[0]!r} of {type(module).__name__}")
    window = sliding_window if sliding_window is not None and sliding_window < packing.longest else None
    scores = Scores(query.shape[-1] ** -0.5 if scaling is None else scaling, window, softcap, s_aux, dropout)
    if query.is_cuda and query.dtype in FUSED_DTYPES and dropout == 0.0:
        if not scores.plain:
            return _flex(query, key, value, packing, scores), None
        long_runs = window is None and sum(packing.lengths) >= LONG_RUN * len(packing.runs)
        if not long_runs and max(query.shape[-1], value.shape[-1]) <= LARGEST_FUSED_HEAD:
            return _varlen(query, key, value, packing, scores), None
    return _by_runs(query, key, value, packing, scores), None


def _varlen(query: Tensor, key: Tensor, value: Tensor, packing: Packing, scores: Scores) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    size, size_v = query.shape[-1], value.shape[-1]
    padded = -(-max(size, size_v) // 8) * 8  # one head size for all, a multiple of 8; zero padding changes no score
    q, k, v = (F.pad(tensor[0], (0, padded - tensor.shape[-1])).transpose(0, 1) for tensor in (query, key, value))
    left = -1 if scores.window is None else scores.window - 1
    output = varlen_attn(
        q, k, v, packing.bounds, packing.bounds, packing.longest, packing.longest,
        scale=scores.scaling, window_size=(left, 0), **_grouped_heads(),
    )  # fmt: skip
    assert isinstance(output, Tensor)  # a tuple only if auxiliary outputs are requested
    return output[None, ..., :size_v]


@cache
def _grouped_heads() -> dict[str, Any]:
    """Returns the arguments for grouped heads: torch 2.13 and newer require `enable_gqa`; earlier versions lack it."""
    from torch.nn.attention.varlen import varlen_attn

    return {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}


def _flex(query: Tensor, key: Tensor, value: Tensor, packing: Packing, scores: Scores) -> Tensor:
    from torch.nn.attention.flex_attention import AuxRequest

    heads = query.shape[1]
    if heads & (heads - 1):  # FlexAttention shares key and value heads only in groups of a power of two
        key, value = (tensor.repeat_interleave(heads // tensor.shape[1], dim=1) for tensor in (key, value))
    output, aux = _compiled_flex()(
        query,
        key,
        value,
        score_mod=None if scores.softcap is None else _soft_cap(scores.softcap, query.device),
        block_mask=packing.block_mask(scores.window),
        scale=scores.scaling,
        enable_gqa=True,
        return_aux=AuxRequest(lse=True),
    )
    if scores.sinks is not None:  # the softmax's sum grows by exp(sink): output * exp(lse) / (exp(lse) + exp(sink))
        output = output * torch.sigmoid(aux.lse - scores.sinks.float()[:, None])[..., None].to(output.dtype)
    return output.transpose(1, 2)


@cache
def _compiled_flex() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    compiled: Callable[..., Any] = torch.compile(flex_attention)
    return compiled


@cache
def _soft_cap(softcap: float, device: torch.device) -> Callable[..., Tensor]:
    cap = torch.tensor(softcap, device=device)  # a tensor, because compiled code specializes on floats

    def capped(score: Tensor, *_: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)

    return capped


def _by_runs(query: Tensor, key: Tensor, value: Tensor, packing: Packing, scores: Scores) -> Tensor:
    split = [
        tensor[0].split([length * count for length, count in packing.runs], dim=1) for tensor in (query, key, value)
    ]
    outputs = []
    for (length, _), *heads in zip(packing.runs, *split, strict=True):
        q, k, v = (tensor.unflatten(1, (-1, length)).transpose(0, 1) for tensor in heads)  # (sequences, H, L, D)
        output = _by_kernel(q, k, v, scores) if scores.plain else _explicit(q, k, v, scores)
        outputs.append(output.transpose(1, 2).flatten(0, 1))  # (sequences * L, H, D_v)
    return (outputs[0] if len(outputs) == 1 else torch.cat(outputs))[None]


def _by_kernel(query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
    length, window = query.shape[2], scores.window
    if window is None or window >= length:
        masking: dict[str, Any] = {"is_causal": True}
    else:
        masking = {"attn_mask": _visible(0, length, length, window, query.device)}
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        scale=scores.scaling,
        dropout_p=scores.dropout,
        enable_gqa=query.shape[1] != key.shape[1],
        **masking,
    )


def _explicit(query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
    """Computes attention with explicit scores, a piece of the queries at a time; the backward pass recomputes them.

    Shapes are (sequences, heads, L, D), as in `_by_runs`.
    """
    sequences, heads, length, _ = query.shape
    key, value = (tensor.repeat_interleave(heads // tensor.shape[1], dim=1) for tensor in (key, value))
    rows = max(1, SCORE_ELEMENTS // (sequences * heads * length))
    pieces = []
    for first in range(0, length, rows):
        work: Callable[..., Tensor] = partial(_piece, first=first, scores=scores)
        last = min(first + rows, length)
        begin = 0 if scores.window is None else max(0, first - scores.window + 1)
        arguments = (query[:, :, first:last], key[:, :, begin:last], value[:, :, begin:last], scores.sinks)
        pieces.append(checkpoint(partial(work, begin=begin), *arguments, use_reentrant=False))
    return torch.cat(pieces, dim=2)


def _piece(
    query: Tensor, key: Tensor, value: Tensor, sinks: Tensor | None, *, first: int, begin: int, scores: Scores
) -> Tensor:
    """Computes attention of queries that start at position `first` to keys and values that start at `begin`."""
    found = query @ key.transpose(2, 3)
    found = found.to(torch.promote_types(found.dtype, torch.float32)) * scores.scaling
    if scores.softcap is not None:
        found = scores.softcap * torch.tanh(found / scores.softcap)
    size, seen = query.shape[2], key.shape[2]
    found = found.masked_fill(~_visible(first - begin, size, seen, scores.window, query.device), -torch.inf)
    if sinks is not None:
        found = torch.cat([found, sinks.to(found.dtype).view(1, -1, 1, 1).expand(*found.shape[:3], 1)], dim=-1)
    weights = found.softmax(dim=-1)[..., :seen].to(value.dtype)
    return F.dropout(weights, scores.dropout) @ value


def _visible(offset: int, queries: int, keys: int, window: int | None, device: torch.device) -> Tensor:
    """Returns the mask of the keys that each query attends to, (queries, keys) bool.

    These are the keys up to the query's position that are in its window. `offset` is the position of the first query
    relative to the first key.
    """
    query = torch.arange(offset, offset + queries, device=device)[:, None]
    key = torch.arange(keys, device=device)
    seen = key <= query
    return seen if window is None else seen & (query - key < window)


AttentionInterface.register(ATTENTION, packed_attention)
