"""Writes the rows of pieces, without duplicates, as the shards that trainers read, and the list of rejects."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data.prepare.options import Options
from data.prepare.pipeline.duplicates import NONE, Repeats
from data.prepare.pipeline.lookup import Lookup
from data.prepare.pipeline.piece import LINE, SIZE, Done, Task
from data.prepare.schemas.convert import texts_of
from data.prepare.tally import EXAMPLES, Tally, shortened
from storage.durable import sha256, sync

_BYTES_A_CHARACTER: Final = 3  # Chinese in UTF-8


@dataclass(frozen=True)
class Part:
    """The rows of one row group of a piece that are kept; `keep` has one byte per row."""

    path: str
    group: int
    keep: bytes


@dataclass(frozen=True)
class Shard:
    """The arguments of one call of `write_shard`."""

    path: str
    schema: pa.Schema
    parts: tuple[Part, ...]


def plan_shards(
    tasks: Sequence[Task], done: Sequence[Done], keep: NDArray[np.bool_], options: Options, folder: Path
) -> list[Shard]:
    """Assigns consecutive row groups to a shard until it has `options.shard_bytes` of text.

    Nothing else determines where a shard ends. `keep`, (N,), is a mask of the rows that are kept.
    """
    plans: list[list[Part]] = []
    size = float(options.shard_bytes)  # full: the first group opens the first shard
    place = 0
    for task, piece in zip(tasks, done, strict=True):
        for group, (rows, characters) in enumerate(piece.groups):
            mask = keep[place : place + rows]
            place += rows
            if not mask.any():
                continue
            if size >= options.shard_bytes:
                plans.append([])
                size = 0.0
            plans[-1].append(Part(str(task.rows), group, mask.tobytes()))
            size += characters * _BYTES_A_CHARACTER * mask.mean()
    return [
        Shard(str(folder / f"part-{index:05}.parquet"), options.schema, tuple(parts))
        for index, parts in enumerate(plans)
    ]


def write_shard(shard: Shard) -> dict[str, Any]:
    """Writes a shard, one row group at a time, and returns its file name, row count, size in bytes, and hash."""
    rows = 0
    with open(shard.path, "wb") as file, pq.ParquetWriter(file, shard.schema, compression="zstd") as writer:
        for part in shard.parts:
            table = pq.ParquetFile(part.path).read_row_group(part.group, columns=shard.schema.names)
            table = table.filter(pa.array(np.frombuffer(part.keep, bool)))
            writer.write_table(table.select(shard.schema.names).cast(shard.schema), row_group_size=table.num_rows)
            rows += table.num_rows
    path = Path(shard.path)
    sync(path)
    return {"file": path.name, "rows": rows, "bytes": path.stat().st_size, "sha256": sha256(path)}


class Places:
    """The origin of each row, by global row number, as if the work files of all P pieces were one table of N rows.

    Attributes:
        starts: global number of the first row of each piece, and N, (P + 1,).
        lines: line of each row, counted within its piece, (N,).
        offsets: number of lines of its source that come before each piece; P values.
    """

    def __init__(self, tasks: Sequence[Task], done: Sequence[Done]) -> None:
        self._tasks = tasks
        self.starts = np.cumsum([0, *(sum(rows for rows, _ in piece.groups) for piece in done)])
        self.lines = np.concatenate([np.zeros(0, np.int64), *(_column(task, LINE) for task in tasks)])
        self.offsets: list[int] = []
        for index, task in enumerate(tasks):
            goes_on = index > 0 and tasks[index - 1].piece.source == task.piece.source
            self.offsets.append(self.offsets[-1] + done[index - 1].lines if goes_on else 0)

    def __getitem__(self, row: int) -> str:
        """Returns the origin of a row, given its global row number, as `file:line`."""
        of = int(np.searchsorted(self.starts, row, side="right")) - 1
        return f"{self._tasks[of].piece.source.path}:{int(self.lines[row]) + self.offsets[of]}"


def write_rejects(
    path: Path, tasks: Sequence[Task], done: Sequence[Done], repeats: Repeats, places: Places, tally: Tally
) -> None:
    """Writes `_rejects.jsonl`: file and line of what was left out, and why; removes repeated rows from the tally."""
    kept = repeats.kept
    lookup = Lookup([task.rows for task in tasks], tasks[0].options.schema.names)
    with path.open("w", encoding="utf-8") as file:
        for index, task in enumerate(tasks):
            source = task.piece.source.path
            start = int(places.starts[index])
            with task.rejects.open(encoding="utf-8") as listed:
                found = [json.loads(line) for line in listed]
            again = np.flatnonzero(~kept[start : places.starts[index + 1]])
            sizes = _column(task, SIZE) if len(again) else np.zeros(0, np.int64)
            texts = _texts_again(repeats, lookup, start + again, tally)
            for row in again.tolist():
                step, reason = _why_again(repeats, places, start + row)
                text, other = texts.get(start + row, ""), texts.get(int(repeats.near[start + row]), "")
                one = {"line": int(places.lines[start + row]), "step": step, "reason": reason}
                found.append({**one, "text": shortened(text), "kept": shortened(other)} if other else one)
                tally.removed[step] += 1
                tally.drop(source, int(sizes[row]))
                if text:
                    tally.show(step, places[start + row], reason, text, other)
            for one in sorted(found, key=lambda one: one["line"]):
                line = {"file": source, **one, "line": one["line"] + places.offsets[index]}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _texts_again(repeats: Repeats, lookup: Lookup, rows: NDArray[np.int64], tally: Tally) -> dict[int, str]:
    """Returns the texts of near duplicates, of the rows they duplicate, and of a few exact duplicates."""
    near = rows[repeats.near[rows] != NONE]
    few = rows[repeats.near[rows] == NONE][: 2 * EXAMPLES]
    wanted = np.concatenate(
        [near, repeats.near[near], few if len(tally.examples.get("exact", ())) < EXAMPLES else few[:0]]
    )
    return {number: "\n".join(texts_of(row)) for number, row in lookup.rows(wanted.tolist()).items()}


def _why_again(repeats: Repeats, places: Places, row: int) -> tuple[str, str]:
    """Returns the step that removes a row that repeats another, and the reason."""
    if repeats.exact[row] != NONE:
        return "exact", f"repeats {places[repeats.exact[row]]}"
    return "near", f"near duplicate of {places[repeats.near[row]]}"


def _column(task: Task, name: str) -> NDArray[np.int64]:
    return np.asarray(pq.read_table(task.rows, columns=[name]).column(name), dtype=np.int64)
