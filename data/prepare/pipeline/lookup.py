"""Reads single rows from several Parquet files by global row number, as if the files were one table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data.prepare.schemas.convert import Row


class Lookup:
    """The rows of Parquet files that are treated as one table.

    Args:
        files: the files, in order.
        columns: the columns to read.
    """

    def __init__(self, files: Sequence[Path], columns: Sequence[str]) -> None:
        self._files, self._columns = files, list(columns)

    @cached_property
    def _groups(self) -> tuple[list[tuple[Path, int]], NDArray[np.int64]]:
        """All G row groups as (file, index in the file), and their first global row numbers and the total, (G + 1,)."""
        groups: list[tuple[Path, int]] = []
        sizes = [0]
        for path in self._files:
            metadata = pq.read_metadata(path)
            groups += [(path, group) for group in range(metadata.num_row_groups)]
            sizes += [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        return groups, np.cumsum(sizes)

    def rows(self, numbers: Iterable[int]) -> dict[int, Row]:
        """Returns the rows with these global row numbers, by number; each row group is read once."""
        wanted = np.unique(np.fromiter(numbers, np.int64))
        found: dict[int, Row] = {}
        if not len(wanted):
            return found
        groups, starts = self._groups
        of = np.searchsorted(starts, wanted, side="right") - 1
        for group in np.unique(of).tolist():
            path, index = groups[group]
            some = wanted[of == group]
            table = pq.ParquetFile(path).read_row_group(index, columns=self._columns)
            found.update(zip(some.tolist(), table.take(some - starts[group]).to_pylist(), strict=True))
        return found
