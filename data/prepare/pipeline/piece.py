"""Cleans a piece of an input file, and writes its rows to a work file with columns for finding duplicates.

This is the work of one task. Its memory is bounded by the largest record and by `FLUSH` characters of rows.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data.prepare.cleaning.steps import Removed, clean
from data.prepare.likeness.wording import SIGNATURE_BYTES, fingerprints
from data.prepare.options import Options
from data.prepare.pipeline.evaluation import Cleaned, Evaluation, decontaminated
from data.prepare.reading.readers import read
from data.prepare.reading.sources import Piece, lines_in
from data.prepare.schemas.classics import with_labels
from data.prepare.schemas.convert import Row, id_of, row_of, texts_of
from data.prepare.schemas.several_rows import records_of
from data.prepare.schemas.turn_records import dialogues
from data.prepare.tally import Tally
from data.tables import DataError

FLUSH: Final = 512 * 1024
DIGEST_BYTES: Final = 16
UNREAD: Final = "cannot be read"
LINE, SIZE, ID, DIGEST, SIGNATURE = "_line", "_characters", "_id", "_digest", "_signature"


@dataclass(frozen=True)
class Task:
    """The arguments of one call of `prepare_piece`, which writes piece number `index` to `folder`."""

    index: int
    piece: Piece
    options: Options
    folder: str
    evaluation: Evaluation | None = None

    @property
    def rows(self) -> Path:
        """The work file of the piece's rows."""
        return Path(self.folder, f"{self.index:06}.parquet")

    @property
    def rejects(self) -> Path:
        """The file that lists the records and rows that are left out."""
        return Path(self.folder, f"{self.index:06}.rejects.jsonl")


@dataclass
class Done:
    """The result of a piece.

    Attributes:
        lines: number of lines of the piece, if it is a part of a text file; otherwise 0.
        groups: number of rows and characters of each row group.
        tally: counts of what happened to the piece's records and rows.
    """

    lines: int = 0
    groups: list[tuple[int, int]] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    failure: tuple[int, str] | None = None
    """Under `--on-bad fail`, the line of the first invalid record and the reason; nothing after it was read."""


def aside_schema(options: Options) -> pa.Schema:
    """Returns the schema of a piece's work file: the table's columns, then those that identify rows and duplicates."""
    extra = [(LINE, pa.int64()), (SIZE, pa.int32()), (ID, pa.binary(DIGEST_BYTES))]
    if options.takes("exact") or options.takes("near"):
        extra.append((DIGEST, pa.binary(DIGEST_BYTES * (1 + options.takes("near")))))  # followed by the fingerprints
    if options.takes("near"):
        extra.append((SIGNATURE, pa.binary(SIGNATURE_BYTES)))
    return pa.schema([*options.schema, *(pa.field(*column) for column in extra)])


def prepare_piece(task: Task) -> Done:
    """Reads, recognizes, and cleans the records of a piece, and writes the rows to its work file.

    Raises:
        OSError: the rows cannot be written.
    """
    done = Done(lines_in(task.piece))
    schema = aside_schema(task.options)
    with (
        pq.ParquetWriter(task.rows, schema, compression="zstd", use_dictionary=False) as writer,
        task.rejects.open("w", encoding="utf-8") as rejects,
    ):
        rows: list[Row] = []
        size = 0
        for row in _rows(task, done, rejects):
            rows.append(row)
            size += row[SIZE]
            if size >= FLUSH:
                _flush(writer, rows, size, schema, done, task.options)
                rows, size = [], 0
        if rows:
            _flush(writer, rows, size, schema, done, task.options)
    return done


def _flush(writer: Any, rows: list[Row], size: int, schema: pa.Schema, done: Done, options: Options) -> None:
    table = pa.Table.from_pylist(rows, pa.schema([one for one in schema if one.name not in (DIGEST, SIGNATURE)]))
    if DIGEST in schema.names:
        digests = np.frombuffer(b"".join(_digest("\x1f".join(texts_of(row))) for row in rows), np.uint8)
        columns: dict[str, NDArray[Any]] = {DIGEST: digests.reshape(len(rows), -1)}
        if SIGNATURE in schema.names:
            prints, columns[SIGNATURE] = fingerprints(rows, options.near_answers)
            columns[DIGEST] = np.hstack([columns[DIGEST], prints.astype("<u8").view(np.uint8)])
        for name, numbers in columns.items():
            data = [None, pa.py_buffer(numbers.astype(numbers.dtype.newbyteorder("<")).tobytes())]
            table = table.append_column(name, pa.Array.from_buffers(schema.field(name).type, len(rows), data))
    writer.write_table(table, row_group_size=len(rows))
    done.groups.append((len(rows), size))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()


def _rows(task: Task, done: Done, rejects: IO[str]) -> Iterator[Row]:
    """Yields the rows that are kept, with the columns of `aside_schema` except those computed for many rows at once."""
    source, tally = task.piece.source.path, done.tally
    last = 0
    for line, where, outcome, key in decontaminated(
        _cleaned(task, done, rejects), task.evaluation, task.options, tally
    ):
        if isinstance(outcome, Removed):
            tally.removed[outcome.step] += 1
            tally.show(outcome.step, where, outcome.reason, outcome.text)
            _refuse(rejects, line, outcome.step, outcome.reason)
        else:
            size = sum(map(len, texts_of(outcome)))
            tally.keep(source, size)
            # Only the first row of a record that became several rows has the id.
            yield {**outcome, LINE: line, SIZE: size, ID: key if line != last else None}
            last = line


def _cleaned(task: Task, done: Done, rejects: IO[str]) -> Iterator[Cleaned]:
    """Yields the rows of a piece's records, and what cleaning removed from them."""
    options, source, tally = task.options, task.piece.source.path, done.tally
    tally.records[source] += 0
    records = read(task.piece, options)
    for found, labels in with_labels(dialogues(records, options) if options.dialogue_id else records):
        tally.records[source] += 1
        if options.columns and isinstance(found.record, Mapping):
            tally.mapped.update(column for _, column in options.columns if column in found.record)
        if any(labels.values()) and options.takes("markup"):
            tally.labels.setdefault(source, Counter()).update(+Counter(labels))
        where = f"{source}:{found.line}"
        try:
            if found.bad:
                raise DataError(found.bad)
            rows = [row_of(record, options) for record in records_of(found.record, options)]
            outcomes = [one for row in rows for one in clean(row, options, where, tally, labels)]
        except DataError as error:
            if options.on_bad == "fail":
                done.failure = found.line, str(error)
                return
            tally.bad.count(where, str(error), UNREAD if found.bad else "")
            tally.show("bad", where, str(error), _shown(found.record))
            _refuse(rejects, found.line, "bad", str(error))
            continue
        tally.more += len(outcomes) - 1
        name = id_of(found.record)
        key = _digest(f"{source}\0{name}") if name else None
        yield from (Cleaned(found.line, where, outcome, key) for outcome in outcomes)


def _refuse(rejects: IO[str], line: int, step: str, reason: str) -> None:
    rejects.write(json.dumps({"line": line, "step": step, "reason": reason}, ensure_ascii=False) + "\n")


def _shown(record: Any) -> str:
    """Returns a record as JSON, for an example in the report."""
    if record is None or isinstance(record, str):
        return record or ""
    return json.dumps(record, ensure_ascii=False, default=str)
