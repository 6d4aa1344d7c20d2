"""The journal: every step's rollouts as one Parquet file, on disk before anyone learns from them.

It is a redo log. A checkpoint and the journal's later files give back any state without generating again.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data.tables import write_table


class Journal:
    """The `journal/` folder of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.parquet"

    def recall(self, step: int, version: int, newest: int | None = None) -> pa.Table | None:
        """The rollouts of `step` as recorded, or None when there are none.

        Raises ValueError, naming the file, when they were made by other weights than `version`, or with `newest` by
        none from the one to the other: such a journal belongs to another course of the run.
        """
        path = self.path(step)
        if not path.exists():
            return None
        table = pq.read_table(path)
        made_by = int((table.schema.metadata or {}).get(b"weights_version", b"-1"))
        if not version <= made_by <= (version if newest is None else newest):
            raise ValueError(
                f"{path}: rollouts of step {step} were made by weights version {made_by}, but the run is at version "
                f"{version}; move the file away to generate them again"
            )
        return table

    def record(self, step: int, version: int, table: pa.Table) -> pa.Table:
        """Writes the rollouts of `step` (aside, synced, renamed) and returns them."""
        write_table(table.replace_schema_metadata({"weights_version": str(version)}), self.path(step))
        return table
