"""Converts between columns of the RLHF table (actors/table.py), arrays, and packed tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from actors.modeling.packed import PackedBatch


def lengths(table: pa.Table, *columns: str) -> np.ndarray:
    """Returns the number of tokens of each row, summed over the given list columns: (rows,) int64."""
    total = np.zeros(len(table), dtype=np.int64)
    for name in columns:
        total += np.diff(_list(table, name).offsets.to_numpy())
    return total


def trained_rows(table: pa.Table) -> np.ndarray:
    """Returns whether any token of each row's response has a nonzero weight in the loss, (rows,) bool."""
    counts = lengths(table, "weights")
    rows = np.repeat(np.arange(len(table)), counts)
    return np.bincount(rows[flat(table, "weights") != 0], minlength=len(table)) > 0


def flat(table: pa.Table, name: str) -> np.ndarray:
    """Returns the concatenated values of all rows of a list column, (values,); zero-copy if the column is one chunk."""
    return _list(table, name).flatten().to_numpy(zero_copy_only=False)


def as_list_column(values: np.ndarray, counts: Sequence[int] | np.ndarray, dtype: pa.DataType) -> pa.ListArray[Any]:
    """Splits concatenated values, (N,), into rows of `counts` values, (R,): the inverse of `flat`.

    Raises ValueError if `counts` do not add up to the number of values.
    """
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    if offsets[-1] != len(values):
        raise ValueError(f"{len(values)} values do not fill rows of {offsets[-1]} in all")
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values, dtype))


def pack(table: pa.Table, rows: Sequence[int]) -> PackedBatch:
    """Packs `rows` as prompt + response sequences; the response tokens are predicted."""
    prompts, responses = _list(table, "prompt"), _list(table, "response")
    sequences, targets = [], []
    for row in rows:
        prompt, response = prompts[row].values.to_numpy(), responses[row].values.to_numpy()
        sequences.append(np.concatenate([prompt, response]))
        targets.append(np.concatenate([np.zeros(len(prompt), bool), np.ones(len(response), bool)]))
    return PackedBatch.of(sequences, targets)


def tokens(table: pa.Table, name: str, rows: Sequence[int]) -> Tensor:
    """Returns the values of a per-token column of `rows`, (N,) float32, in the order of `pack`'s predicted tokens."""
    column = _list(table, name)
    return torch.from_numpy(np.concatenate([column[row].values.to_numpy() for row in rows]).astype(np.float32))


def _list(table: pa.Table, name: str) -> pa.ListArray[Any]:
    column = table.column(name).combine_chunks()
    assert isinstance(column, pa.ListArray)
    return column
