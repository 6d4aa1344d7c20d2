"""Which rows say what an earlier one says: exactly, by digest, or nearly, by MinHash.

Memory: 16 bytes a row for digests, 8 for each band in turn; signatures stay on disk and are mapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data.prepare.options import Options
from data.prepare.piece import DIGEST, SIGNATURE
from data.prepare.windows import PERMUTATIONS, bands

Rows = NDArray[np.int64]
Signatures = NDArray[np.uint32]  # (N, PERMUTATIONS)
NONE: Final = -1
_PAIRS: Final = 65536  # pairs whose signatures are compared at a time


def find_duplicates(files: Sequence[Path], counts: Sequence[int], options: Options, folder: Path) -> tuple[Rows, Rows]:
    """For each of the N rows of `files`, the earlier row that it repeats exactly, and nearly, or `NONE`: two of (N,).

    Args:
        counts: rows of each file.
        folder: for the signatures, 512 bytes a row.
    """
    total = sum(counts)
    exact, near = np.full(total, NONE), np.full(total, NONE)
    if not total or not (options.takes("exact") or options.takes("near")):
        return exact, near
    digests = np.zeros((total, 2), np.uint64)
    stored = None
    if options.takes("near"):
        stored = np.memmap(folder / "signatures", np.uint32, "w+", shape=(total, PERMUTATIONS))
    place = 0
    for path, count in zip(files, counts, strict=True):
        if not count:
            continue
        for batch in pq.ParquetFile(path).iter_batches(columns=[DIGEST, *([SIGNATURE] if stored is not None else [])]):
            span = slice(place, place + batch.num_rows)
            digests[span] = _numbers(batch.column(DIGEST), np.dtype("<u8"))
            if stored is not None:
                stored[span] = _numbers(batch.column(SIGNATURE), np.dtype("<u4"))
            place = span.stop
    same = exact_duplicates(digests)
    if options.takes("exact"):
        exact = same
    if stored is not None:
        near = near_duplicates(stored, np.flatnonzero(same == NONE), options.near_threshold)
        if not options.takes("exact"):
            near = np.where(same == NONE, near, same)
    return exact, near


def exact_duplicates(digests: NDArray[np.uint64]) -> Rows:
    """For each row of (N, 2) digests the first row with the same, or `NONE` for the first itself."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: equal ones stay in the order of rows
    ordered = digests[order]
    opens = np.ones(len(order), bool)
    opens[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    firsts = order[np.maximum.accumulate(np.where(opens, np.arange(len(order)), 0))]
    found = np.full(len(order), NONE)
    found[order] = np.where(opens, NONE, firsts)
    return found


def near_duplicates(signatures: Signatures, rows: Rows, threshold: float) -> Rows:
    """For each row of `signatures` the first of its group of near duplicates, or `NONE`; only `rows` (ascending) count.

    Candidates are rows that agree in a band of their signatures (Leskovec, Rajaraman, Ullman: Mining of Massive
    Datasets, 3.4); a pair is near where the share of equal values, the estimate of Jaccard's similarity, is at least
    `threshold`. In a bucket each row is compared with the first and with the one before it, so that the work is linear.
    Groups are the connected components of pairs.
    """
    found = np.full(len(signatures), NONE)
    count, width = bands(threshold)
    parents = np.arange(len(signatures))
    for band in range(count):
        keys = _band_keys(signatures, rows, band * width, width)
        order = np.argsort(keys, kind="stable")
        ordered, members = keys[order], rows[order]
        follows = np.zeros(len(order), bool)
        follows[1:] = ordered[1:] == ordered[:-1]
        places = np.flatnonzero(follows)
        opens = np.maximum.accumulate(np.where(follows, 0, np.arange(len(order))))
        pairs = np.stack([members[opens[places]], members[places]], axis=1)
        beside = np.stack([members[places - 1], members[places]], axis=1)
        _join(parents, np.concatenate([pairs, beside[beside[:, 0] != pairs[:, 0]]]), signatures, threshold)
    for row in rows:
        root = _root(parents, row)
        if root != row:
            found[row] = root
    return found


def _band_keys(signatures: Signatures, rows: Rows, start: int, width: int) -> NDArray[np.uint64]:
    keys = np.zeros(len(rows), np.uint64)
    for column in range(start, start + width):
        keys = (keys ^ signatures[rows, column]) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


def _join(parents: Rows, pairs: Rows, signatures: Signatures, threshold: float) -> None:
    """Unite the groups of those (P, 2) pairs that are near; the earlier row stands for its group."""
    for start in range(0, len(pairs), _PAIRS):
        part = pairs[start : start + _PAIRS]
        likeness = (signatures[part[:, 0]] == signatures[part[:, 1]]).mean(axis=1)
        for first, second in part[likeness >= threshold]:
            one, other = _root(parents, first), _root(parents, second)
            parents[max(one, other)] = min(one, other)


def _root(parents: Rows, row: int) -> int:
    while parents[row] != row:
        parents[row] = parents[parents[row]]
        row = parents[row]
    return row


def _numbers(column: pa.Array, kind: np.dtype[np.generic]) -> NDArray[np.generic]:
    """A column of byte strings of one length as numbers, (rows, numbers a string)."""
    width = column.type.byte_width
    data = np.frombuffer(
        column.buffers()[1], kind, count=len(column) * width // kind.itemsize, offset=column.offset * width
    )
    return data.reshape(len(column), -1)
