"""Packs documents into full blocks, and limits samples to a maximum length.

Packed rows carry their sequence lengths, so that attention never crosses from one document into the next and no token
is padding. Every function is pure: the same seed gives the same blocks and order on any machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.tables import DataError

Ids = NDArray[np.int32]  # token ids, (T,)

BLOCKS = pa.schema([("tokens", pa.list_(pa.int32())), ("lengths", pa.list_(pa.int32()))])
"""One row per block: its T tokens, and the lengths of the sequences in it, which sum to T."""


def pack_blocks(documents: Sequence[Ids], block_tokens: int, seed: int) -> pa.Table:
    """Concatenates documents in a seeded order and splits them into rows of `BLOCKS` with `block_tokens` tokens each.

    A document that reaches a block's end continues in the next block as a separate sequence. The last block is filled
    up with documents from the beginning of the order, so no token of the corpus is lost, and fewer than `block_tokens`
    tokens are repeated.

    Args:
        documents: token ids of each document, (T,).
        block_tokens: number of tokens of a block.
        seed: determines the order.

    Raises:
        DataError: a document has no tokens, or there are no documents.
    """
    _require_tokens(documents)
    order = np.random.default_rng((seed, 0)).permutation(len(documents))
    total = sum(len(document) for document in documents)
    wanted = -(-total // block_tokens) * block_tokens
    chosen, have = list(order), total
    while have < wanted:
        chosen.append(order[(len(chosen) - len(order)) % len(order)])
        have += len(documents[chosen[-1]])
    tokens = np.concatenate([documents[index] for index in chosen])[:wanted]
    ends = np.cumsum([len(documents[index]) for index in chosen])
    return _blocks(tokens, ends, block_tokens)


def cut_documents(documents: Sequence[Ids], block_tokens: int) -> pa.Table:
    """Returns rows of `BLOCKS` with one document each, in order; a document is cut every `block_tokens` tokens.

    This is meant for evaluation, where every token must count exactly once and each document should be evaluated with
    as much of its own context as fits into a block.
    """
    _require_tokens(documents)
    pieces = [
        document[start : start + block_tokens]
        for document in documents
        for start in range(0, len(document), block_tokens)
    ]
    offsets = np.cumsum([0, *(len(piece) for piece in pieces)])
    lengths = np.diff(offsets).astype(np.int32)
    rows = np.arange(len(pieces) + 1, dtype=np.int32)
    return pa.table([_lists(np.concatenate(pieces), offsets), _lists(lengths, rows)], schema=BLOCKS)


@dataclass(frozen=True)
class Fit:
    """The result of limiting samples to a length.

    Attributes:
        kept: indices of the samples that remain.
        cut: number of samples that are cut.
        dropped: number of samples that are left out.
        turns: total number of turns removed from the samples that are cut.
    """

    kept: list[int]
    cut: int
    dropped: int
    turns: int = 0

    def __str__(self) -> str:
        parts = [f"{len(self.kept)} samples"]
        by_turns = f", {self.turns} turns in all" if self.turns else ""
        parts += [f"{self.cut} of them cut{by_turns}"] if self.cut else []
        parts += [f"{self.dropped} left out as too long"] if self.dropped else []
        return ", ".join(parts)


def fit_lengths(lengths: Sequence[int], max_tokens: int, too_long: str, what: str) -> Fit:
    """Applies the policy for samples that are longer than `max_tokens`.

    Args:
        lengths: number of tokens of each sample.
        max_tokens: the maximum number of tokens.
        too_long: `refuse` raises an error, `cut` keeps long samples for the caller to cut, `drop` leaves them out.
        what: the table's name in messages.

    Raises:
        DataError: under `refuse`, a sample is too long (the message names the first one); under `drop`, no sample is
            left.
    """
    long = [row for row, length in enumerate(lengths) if length > max_tokens]
    if long and too_long == "refuse":
        raise DataError(
            f"{what}: row {long[0]} has {lengths[long[0]]} tokens, more than data.max_tokens {max_tokens} "
            f"({len(long)} such rows); set data.too_long to cut or drop, or raise data.max_tokens"
        )
    if too_long == "cut":
        return Fit(list(range(len(lengths))), len(long), 0)
    left_out = set(long)
    kept = [row for row in range(len(lengths)) if row not in left_out]
    if not kept:
        raise DataError(f"{what}: every sample has more than data.max_tokens {max_tokens} tokens; raise it")
    return Fit(kept, 0, len(long))


def _require_tokens(documents: Sequence[Ids]) -> None:
    if not documents:
        raise DataError("there are no documents to pack")
    for row, document in enumerate(documents):
        if len(document) == 0:
            raise DataError(f"row {row}: the document has no tokens; leave it out")


def _blocks(tokens: Ids, ends: NDArray[np.int64], block_tokens: int) -> pa.Table:
    """Cuts `tokens` (T,), T a multiple of `block_tokens`, into rows of `BLOCKS`; `ends` are the documents' ends."""
    cuts = np.arange(block_tokens, len(tokens) + 1, block_tokens)
    bounds = np.unique(
        np.concatenate([ends[ends < len(tokens)], cuts])
    )  # ends of sequences, inside a block or at its end
    lengths = np.diff(bounds, prepend=0).astype(np.int32)
    sequences = np.concatenate([[0], np.searchsorted(bounds, cuts, side="right")])
    return pa.table([_lists(tokens, np.concatenate([[0], cuts])), _lists(lengths, sequences)], schema=BLOCKS)


def _lists(values: Ids, offsets: NDArray[np.integer[Any]]) -> pa.ListArray[Any]:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values, pa.int32()))
