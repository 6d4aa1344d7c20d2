"""Finds rows that repeat an earlier one: exactly, by digest, or in another wording, by fingerprint and by MinHash.

Memory: about 100 bytes per row. Signatures stay on disk and are read one value at a time; they are not memory-mapped,
since the pages of a mapped file count as memory of the process that reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data.prepare.likeness.wording import PERMUTATIONS, Signatures, alike
from data.prepare.options import Options
from data.prepare.pipeline.lookup import Lookup
from data.prepare.pipeline.piece import DIGEST, ID, SIGNATURE

Rows = NDArray[np.int64]
NONE: Final = -1
_RARE: Final = 8  # rows
_PAIRS: Final = 512  # pairs whose texts are compared at a time
_LOW: Final = (1 << 32) - 1


@dataclass(frozen=True)
class Repeats:
    """For each of N rows, an earlier row that it repeats, or `NONE`; at most one of the two arrays names one.

    Attributes:
        exact: earlier rows with the same content.
        near: earlier rows with the same content in another wording.
    """

    exact: Rows  # (N,)
    near: Rows  # (N,)

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Mask of the rows that repeat no other, (N,)."""
        return (self.exact == NONE) & (self.near == NONE)


def find_duplicates(files: Sequence[Path], counts: Sequence[int], options: Options, folder: Path) -> Repeats:
    """Finds the earlier rows that the N rows of `files` repeat.

    Args:
        files: the work files of the pieces, in order.
        counts: number of rows of each file.
        options: the options of the preparation.
        folder: where to store the signatures, 64 bytes per row.
    """
    total = sum(counts)
    found = Repeats(*(np.full(total, NONE) for _ in range(2)))
    if not total or not (options.takes("exact") or options.takes("near")):
        return found
    digests, _ = _read_digests(files, counts, DIGEST)
    same = exact_duplicates(digests[:, :2])
    if options.takes("exact"):
        found.exact[:] = same
    if options.takes("near"):
        if not options.takes("exact"):
            found.near[:] = same
        alone, prints = same == NONE, digests[:, 2:]
        rows = np.flatnonzero(alone & prints.all(axis=1))
        found.near[rows] = _of(rows, same_wording(prints[rows]))
        _find_reworded(alone & (found.near == NONE), found, files, counts, options, folder)
        while (further := (found.near != NONE) & (found.near[found.near] != NONE)).any():  # a chain of repeats
            found.near[further] = found.near[found.near[further]]
    return found


def shared_ids(files: Sequence[Path], counts: Sequence[int]) -> Rows:
    """Returns, for each of the N rows of `files`, the first row of its source with the same id, or `NONE`, (N,)."""
    found = np.full(sum(counts), NONE)
    if len(found):
        ids, there = _read_digests(files, counts, ID)
        rows = np.flatnonzero(there)
        found[rows] = _of(rows, exact_duplicates(ids[rows]))
    return found


def _find_reworded(
    alone: NDArray[np.bool_],
    found: Repeats,
    files: Sequence[Path],
    counts: Sequence[int],
    options: Options,
    folder: Path,
) -> None:
    """Sets `found.near` of long rows that repeat another one except for a few words.

    `alone`, (N,), is a mask of the rows that are considered.
    """
    stored, stored_rows, place = Stored(folder), list[Rows](), 0
    for batch in _batches(files, counts, SIGNATURE):
        signatures = _numbers(batch, np.dtype("<u4"))
        long = np.flatnonzero(alone[place : place + len(batch)] & signatures.any(axis=1))
        stored.add(signatures[long].astype(np.uint32))
        stored_rows.append(place + long)
        place += len(batch)
    pairs = np.concatenate(stored_rows)[candidates(stored)]
    lookup = Lookup(files, options.schema.names)
    for start in range(0, len(pairs), _PAIRS):
        some = pairs[start : start + _PAIRS]
        texts = lookup.rows(some.ravel().tolist())
        for earlier, later in some.tolist():
            if (first := int(found.near[earlier])) != NONE:
                earlier = first
                texts.update({} if earlier in texts else lookup.rows([earlier]))
            if found.near[later] == NONE and alike(
                texts[earlier], texts[later], options.near_answers, options.near_threshold
            ):
                found.near[later] = earlier


def _of(rows: Rows, found: Rows) -> Rows:
    """Converts indices into `rows` to row numbers; `NONE` is kept."""
    return np.where(found == NONE, NONE, rows[found]) if len(rows) else found


def _read_digests(
    files: Sequence[Path], counts: Sequence[int], column: str
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Returns the digests of all N rows as 64-bit numbers, (N, 2) or wider, and a mask of rows that have one, (N,)."""
    read = [(_numbers(batch, np.dtype("<u8")), batch.is_valid()) for batch in _batches(files, counts, column)]
    return np.concatenate([one for one, _ in read]), np.concatenate([there for _, there in read])


def _batches(files: Sequence[Path], counts: Sequence[int], column: str) -> Iterator[pa.Array[Any]]:
    for path, count in zip(files, counts, strict=True):
        if count:
            with pq.ParquetFile(path) as file:
                yield from (batch.column(0) for batch in file.iter_batches(8192, columns=[column]))


def exact_duplicates(digests: NDArray[np.uint64]) -> Rows:
    """Returns, for each row of (N, 2) digests, the first row with the same digest, or `NONE` for the first, (N,)."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: equal digests stay in the order of rows
    ordered = digests[order]
    opens = np.ones(len(order), bool)
    opens[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    firsts = order[np.maximum.accumulate(np.where(opens, np.arange(len(order)), 0))]
    found = np.full(len(order), NONE)
    found[order] = np.where(opens, NONE, firsts)
    return found


def same_wording(prints: NDArray[np.uint64]) -> Rows:
    """Returns, for each row of (N, 2) fingerprints, the first row that shares one of them, or `NONE`, (N,)."""
    firsts = np.arange(len(prints))
    for column in prints.T:
        found = exact_duplicates(np.stack([column, column], axis=1))
        firsts = np.minimum(firsts, np.where(found == NONE, firsts, found))
    while not np.array_equal(earlier := firsts[firsts], firsts):
        firsts = earlier
    return np.where(firsts == np.arange(len(firsts)), NONE, firsts)


class Stored:
    """The signatures of rows on disk, with one file for each value of a signature."""

    def __init__(self, folder: Path) -> None:
        self._values = [folder / f"signature-{index:02}" for index in range(PERMUTATIONS)]
        for path in self._values:
            path.touch()

    def add(self, signatures: Signatures) -> None:
        """Appends (R, PERMUTATIONS) signatures."""
        for value, path in zip(signatures.T, self._values, strict=True):
            with path.open("ab") as file:
                file.write(value.tobytes())

    def __iter__(self) -> Iterator[NDArray[np.uint32]]:
        """Yields each value of all rows, (rows,)."""
        return (np.fromfile(path, np.uint32) for path in self._values)


def candidates(stored: Stored) -> Rows:
    """Returns pairs of an earlier and a later row that share many rare signature values, (P, 2), ordered by the later.

    A pair shares at least `PERMUTATIONS // 2` rare values. A value that more than `_RARE` rows have indicates a
    template, not a similarity. For every other value, each row is paired with the first row and with the previous row
    that have it, so that the work is linear.
    """
    parts = []
    for values in stored:
        order = np.argsort(values, kind="stable")
        opens = np.flatnonzero(np.append(True, values[order][1:] != values[order][:-1])[: len(order)])
        sizes = np.diff(np.append(opens, len(order)))
        within = np.arange(len(order)) - np.repeat(opens, sizes)
        rare = np.repeat(sizes <= _RARE, sizes)
        first, second = np.flatnonzero(rare & (within > 0)), np.flatnonzero(rare & (within > 1))
        parts.append(_numbered(order[first - within[first]], order[first]))
        parts.append(_numbered(order[second - 1], order[second]))
    pairs, counts = np.unique(np.concatenate(parts), return_counts=True)
    pairs = pairs[counts >= PERMUTATIONS // 2]
    return np.stack([pairs & _LOW, pairs >> 32], axis=1)


def _numbered(earlier: Rows, later: Rows) -> Rows:
    """Returns one number per pair, ordered by the later row and then the earlier one."""
    return (later << 32) | earlier


def _numbers(column: pa.Array[Any], kind: np.dtype[np.generic]) -> NDArray[np.generic]:
    """Converts a column of byte strings of equal length to numbers, (rows, numbers per string)."""
    width = column.type.byte_width
    buffer = column.buffers()[1]
    assert buffer is not None
    data = np.frombuffer(
        memoryview(buffer), kind, count=len(column) * width // kind.itemsize, offset=column.offset * width
    )
    return data.reshape(len(column), -1)
