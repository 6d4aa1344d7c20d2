"""Which rows say what an earlier one says: exactly, by digest, or nearly, by MinHash.

Memory: about 100 bytes a row. Signatures and their bands' keys stay on disk and are read a stretch or a band at a time;
they are not mapped, since the pages of a mapped file count as memory of who reads it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data.prepare.options import Options
from data.prepare.piece import DIGEST, ID, SIGNATURE
from data.prepare.windows import PERMUTATIONS, SIGNATURE_BYTES, Signatures, bands

Rows = NDArray[np.int64]
NONE: Final = -1
_PAIRS: Final = 16384  # pairs whose signatures are compared at a time


@dataclass(frozen=True)
class Repeats:
    """For each of N rows an earlier row that it repeats, or `NONE`; at most one of the three names one.

    Attributes:
        ids: with the same id in the same file, but another content: one of the two is wrong.
        exact: with the same content.
        near: with nearly the same content.
    """

    ids: Rows  # (N,)
    exact: Rows  # (N,)
    near: Rows  # (N,)

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Rows that repeat none, (N,)."""
        return (self.ids == NONE) & (self.exact == NONE) & (self.near == NONE)


def find_duplicates(files: Sequence[Path], counts: Sequence[int], options: Options, folder: Path) -> Repeats:
    """What the N rows of `files` repeat. A row that repeats an id is not one that others are held against.

    Args:
        counts: rows of each file.
        folder: for the signatures, up to 700 bytes a row.
    """
    total = sum(counts)
    found = Repeats(*(np.full(total, NONE) for _ in range(3)))
    if not total:
        return found
    digests = None
    if options.takes("exact") or options.takes("near"):
        digests, _ = _read_digests(files, counts, DIGEST)
    if options.takes("ids"):
        ids, there = _read_digests(files, counts, ID)
        rows = np.flatnonzero(there)
        earlier = _of(rows, exact_duplicates(ids[rows]))
        if digests is not None:  # a record that stands there twice is no contradiction
            earlier[(digests[rows] == digests[earlier]).all(axis=1)] = NONE
        found.ids[rows] = earlier
    if digests is None:
        return found
    rows = np.flatnonzero(found.ids == NONE)
    same = np.full(total, NONE)
    same[rows] = _of(rows, exact_duplicates(digests[rows]))
    if options.takes("exact"):
        found.exact[:] = same
    if options.takes("near"):
        if not options.takes("exact"):
            found.near[:] = same
        alone = (found.ids == NONE) & (same == NONE)
        stored = Stored(folder, *bands(options.near_threshold))
        place = 0
        for batch in _batches(files, counts, SIGNATURE):
            stored.add(_numbers(batch, np.dtype("<u4"))[alone[place : place + len(batch)]])
            place += len(batch)
        rows = np.flatnonzero(alone)
        found.near[rows] = _of(rows, near_duplicates(stored, options.near_threshold))
    return found


def _of(rows: Rows, found: Rows) -> Rows:
    """Places among `rows`, or `NONE`, as rows."""
    return np.where(found == NONE, NONE, rows[found]) if len(rows) else found


def _read_digests(
    files: Sequence[Path], counts: Sequence[int], column: str
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """The digests of all N rows, (N, 2), and which rows have one, (N,)."""
    digests, there = np.zeros((sum(counts), 2), np.uint64), np.zeros(sum(counts), bool)
    place = 0
    for batch in _batches(files, counts, column):
        span = slice(place, place + len(batch))
        digests[span], there[span] = _numbers(batch, np.dtype("<u8")), batch.is_valid()
        place = span.stop
    return digests, there


def _batches(files: Sequence[Path], counts: Sequence[int], column: str) -> Iterator[pa.Array]:
    for path, count in zip(files, counts, strict=True):
        if count:
            with pq.ParquetFile(path) as file:
                yield from (batch.column(0) for batch in file.iter_batches(8192, columns=[column]))


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


class Stored:
    """The signatures of rows on disk, one after the other, and the keys of each of their B bands in a file of its own.

    A band's key is a hash of `width` values of the signature; rows that share one are candidates.
    """

    def __init__(self, folder: Path, count: int, width: int) -> None:
        self.rows, self.bands, self._width = 0, count, width
        self._signatures = folder / "signatures"
        self._keys = [folder / f"band-{band:03}" for band in range(count)]

    def add(self, signatures: Signatures) -> None:
        """Append rows."""
        with self._signatures.open("ab") as file:
            file.write(signatures.tobytes())
        for band, path in enumerate(self._keys):
            keys = np.zeros(len(signatures), np.uint64)
            for value in signatures.T[band * self._width : (band + 1) * self._width]:
                keys = (keys ^ value) * np.uint64(0x9E3779B97F4A7C15)
                keys ^= keys >> np.uint64(29)
            with path.open("ab") as file:
                file.write(keys.tobytes())
        self.rows += len(signatures)

    def keys(self, band: int) -> NDArray[np.uint64]:
        """The band's keys of all rows, (rows,)."""
        return np.fromfile(self._keys[band], np.uint64)

    def likeness(self, pairs: Rows) -> NDArray[np.float64]:
        """Of (P, 2) pairs of rows the share of equal values, which estimates Jaccard's similarity, (P,)."""
        rows, places = np.unique(pairs, return_inverse=True)
        with self._signatures.open("rb", buffering=0) as file:
            read = [os.pread(file.fileno(), SIGNATURE_BYTES, row * SIGNATURE_BYTES) for row in rows.tolist()]
        signatures = np.frombuffer(b"".join(read), np.uint32).reshape(len(rows), PERMUTATIONS)
        first, second = places.reshape(-1, 2).T
        return (signatures[first] == signatures[second]).mean(axis=1)


def near_duplicates(stored: Stored, threshold: float) -> Rows:
    """For each row the first of its group of near duplicates, or `NONE` for that one and for rows alone.

    Candidates are rows that agree in a band of their signatures (Leskovec, Rajaraman, Ullman: Mining of Massive
    Datasets, 3.4); a pair is near where its likeness is at least `threshold`. In a bucket each row is compared with the
    first and with the one before it, so that the work is linear. Groups are the connected components of near pairs.
    """
    groups = np.arange(stored.rows)
    for band in range(stored.bands):
        keys = stored.keys(band)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        follows = np.zeros(len(keys), bool)
        follows[1:] = keys[1:] == keys[:-1]
        opens = np.maximum.accumulate(np.where(follows, 0, np.arange(len(keys))))
        places = np.flatnonzero(follows)
        for start in range(0, len(places), _PAIRS):
            some = places[start : start + _PAIRS]
            third = some[some - 1 != opens[some]]  # and later ones of their buckets
            left = order[np.concatenate([opens[some], third - 1])]
            pairs = np.stack([left, order[np.concatenate([some, third])]], axis=1)
            pairs = pairs[groups[pairs[:, 0]] != groups[pairs[:, 1]]]
            _unite(groups, pairs[stored.likeness(pairs) >= threshold])
    return np.where(groups == np.arange(len(groups)), NONE, groups)


def _unite(groups: Rows, pairs: Rows) -> None:
    """Make one group of those that (P, 2) pairs join; `groups` names the first row of each row's group, (N,)."""
    while len(pairs):
        firsts = groups[pairs]
        np.minimum.at(groups, firsts.max(axis=1), firsts.min(axis=1))  # a group joins the least of those it meets
        while not np.array_equal(shorter := groups[groups], groups):
            groups[:] = shorter
        pairs = pairs[groups[pairs[:, 0]] != groups[pairs[:, 1]]]


def _numbers(column: pa.Array, kind: np.dtype[np.generic]) -> NDArray[np.generic]:
    """A column of byte strings of one length as numbers, (rows, numbers a string)."""
    width = column.type.byte_width
    data = np.frombuffer(
        column.buffers()[1], kind, count=len(column) * width // kind.itemsize, offset=column.offset * width
    )
    return data.reshape(len(column), -1)
