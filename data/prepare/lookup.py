"""Single rows out of the files of all pieces, by their number among all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from data.prepare.schemas import Row


class Lookup:
    """Rows of Parquet files that are taken as one long table.

    Args:
        files: the files, in order.
        columns: what of a row is read.
    """

    def __init__(self, files: Sequence[Path], columns: Sequence[str]) -> None:
        self._columns = list(columns)
        self._groups: list[tuple[Path, int]] = []
        sizes = [0]
        for path in files:
            metadata = pq.read_metadata(path)
            self._groups += [(path, group) for group in range(metadata.num_row_groups)]
            sizes += [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._starts = np.cumsum(sizes)

    def rows(self, numbers: Iterable[int]) -> dict[int, Row]:
        """The rows with these numbers; each row group is read once."""
        wanted = np.unique(np.fromiter(numbers, np.int64))
        groups = np.searchsorted(self._starts, wanted, side="right") - 1
        found: dict[int, Row] = {}
        for group in np.unique(groups).tolist():
            path, index = self._groups[group]
            some = wanted[groups == group]
            table = pq.ParquetFile(path).read_row_group(index, columns=self._columns)
            found.update(zip(some.tolist(), table.take(some - self._starts[group]).to_pylist(), strict=True))
        return found
