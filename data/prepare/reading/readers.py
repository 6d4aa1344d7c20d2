"""One reader per format, which yields the records of a piece of a file with their lines, and what could not be read.

A reader yields every intact record. Only the damaged line or element is lost or, if the rest of a file can no longer be
read, everything after the damage. Damage alone does not stop the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import first_line
from data.files.json_text import parse
from data.files.lines import Unreadable, chunks, lines
from data.files.sheets import read_sheets
from data.files.tabular import read_csv
from data.prepare.options import Options
from data.prepare.reading.json_object import object_records
from data.prepare.reading.sources import Piece
from data.tables import DataError

ROWS: Final = 256  # rows of a binary table that are converted to Python objects at a time


class Found(NamedTuple):
    """A record and its line, row, or first line, counted from 1; if there is no record, `bad` is the reason."""

    line: int
    record: Any
    bad: str = ""


def read(piece: Piece, options: Options) -> Iterator[Found]:
    """Yields the records of a piece, in order.

    Lines are counted from the piece's beginning, rows of a Parquet file from the file's beginning.
    """
    if piece.source.unreadable:
        yield Found(1, None, piece.source.unreadable)
        return
    line = 0
    try:
        for found in _READERS[piece.source.format](piece, options):
            line = found.line
            yield found
    except Unreadable as error:
        yield Found(line + 1, None, f"{error}; the rest of the file was not read")


def text_lines(piece: Piece, options: Options) -> Iterator[tuple[int, str, str]]:
    """Yields lines as `(number, text, reason it was rejected)`; the reason is empty for a valid line."""
    source = piece.source
    return lines(chunks(Path(source.path), piece.start, piece.end), source.encoding, options.max_row_bytes)


def _jsonl(piece: Piece, options: Options) -> Iterator[Found]:
    for number, text, bad in text_lines(piece, options):
        if bad:
            yield Found(number, None, bad)
        elif text.strip():
            try:
                yield Found(number, parse(text))
            except DataError as error:
                yield Found(number, None, str(error))


def _json(piece: Piece, options: Options) -> Iterator[Found]:
    # Elements are read one at a time, so that a list may be larger than memory.
    from data.files.json_list import begins_list, elements

    if not begins_list(piece.source.path):
        records = object_records(text_lines(piece, options), options.max_row_bytes)
        if records is None:
            yield from _jsonl(piece, options)
        else:
            yield from (Found(number, record) for number, record in enumerate(records, start=1))
        return
    for line, record, bad in elements(piece.source.path, piece.source.encoding, options.max_row_bytes):
        yield Found(line, record, bad)


_PART: Final = "<目录>"
_OPENS: Final = (_PART, "<篇名>")


def _text(piece: Piece, options: Options) -> Iterator[Found]:
    """Yields the documents of a text file (see `Options.text_unit`); a classical text is split into <篇名> sections."""
    unit, most = options.text_unit, options.max_chars
    kept: list[str] = []
    first, size, titled = 1, 0, False
    for number, text, bad in text_lines(piece, options):
        if bad:
            yield Found(number, None, bad)
            continue
        blank = not text or text.isspace()
        opens = text.startswith(_OPENS)
        ends = (opens and not titled) if unit == "file" else unit == "line" or blank
        if (ends or size > most) and any(map(str.strip, kept)):
            yield Found(first, {"text": "\n".join(kept)})
            kept, size = [], 0
        if not kept:
            first = number
        kept.append(text)
        size += len(text) + 1
        # A <目录> line names the part, and the <篇名> line after it the section: both begin the same document.
        titled = (titled and blank) or (opens and text.startswith(_PART))
    if any(map(str.strip, kept)):
        yield Found(first, {"text": "\n".join(kept)})


def _csv(piece: Piece, options: Options) -> Iterator[Found]:
    delimiter = "\t" if piece.source.format == "tsv" else ","
    for line, record, bad in read_csv(text_lines(piece, options), delimiter, options.max_row_bytes):
        yield Found(line, record, bad)


_SPEAKERS: Final = {"P": "user", "D": "assistant"}


def _dialog(piece: Piece, options: Options) -> Iterator[Found]:
    """Yields dialogues from lines `SPEAKER<tab>TEXT` or `SPEAKER<tab>TEXT<tab>LABEL`; blank lines separate dialogues.

    The speaker `P` is the patient, `D` the doctor. Consecutive lines of one speaker form one turn. Labels, and lines
    with a different first column (`id`, `SUM1`, ...), are ignored. If a line is invalid, or the dialogue has more than
    `max_row_bytes` characters, yields the reason (`Found.bad`) instead of the dialogue.
    """
    turns: list[dict[str, str]] = []
    first, size, broken = 0, 0, ""
    for number, text, bad in chain(text_lines(piece, options), [(0, "", "")]):
        if text.strip() or bad:
            first = first or number
            speaker, _, rest = text.partition("\t")
            size += len(text)
            if size > options.max_row_bytes:
                bad = bad or "the dialogue is longer than --max-row-bytes"
            broken = broken or (bad and f"line {number}: {bad}")
            if broken:
                turns = []
            elif speaker in _SPEAKERS:
                said = rest.rpartition("\t")[0] or rest
                if turns and turns[-1]["role"] == _SPEAKERS[speaker]:
                    turns[-1]["content"] += "\n" + said
                else:
                    turns.append({"role": _SPEAKERS[speaker], "content": said})
            continue
        if turns or broken:
            yield Found(first, None if broken else {"messages": turns}, broken)
        turns, first, size, broken = [], 0, 0, ""


def _parquet(piece: Piece, options: Options) -> Iterator[Found]:
    """Yields the rows of a piece's row groups; if one is damaged, the rest of that row group is lost."""
    try:
        file = pq.ParquetFile(piece.source.path)
        groups = range(file.num_row_groups) if piece.end is None else range(piece.start, piece.end)
        sizes = [file.metadata.row_group(group).num_rows for group in range(groups.stop)]
    except (OSError, ValueError, pa.ArrowException) as error:
        raise Unreadable(f"not readable as Parquet ({first_line(error)})") from error
    with file:
        for group in groups:
            row = sum(sizes[:group])
            try:
                for found in _rows(file.iter_batches(ROWS, row_groups=[group]), row):
                    row = found.line
                    yield found
            except (OSError, ValueError, pa.ArrowException) as error:
                lost = sum(sizes[: group + 1]) - row
                yield Found(row + 1, None, f"not readable as Parquet ({first_line(error)}); {lost} rows are lost")


def _arrow(piece: Piece, options: Options) -> Iterator[Found]:
    """Yields the rows of Arrow streams, as in a saved `datasets` folder, and of Arrow files."""
    try:
        with pa.memory_map(piece.source.path) as file:
            if bytes(file.read(6)) == b"ARROW1":
                reader = pa.ipc.open_file(file)
                yield from _rows((reader.get_batch(index) for index in range(reader.num_record_batches)), 0)
            else:
                file.seek(0)
                yield from _rows(iter(pa.ipc.open_stream(file)), 0)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise Unreadable(f"not readable as Arrow ({first_line(error)})") from error


def _sheets(piece: Piece, _: Options) -> Iterator[Found]:
    for row, record, bad in read_sheets(Path(piece.source.path)):
        yield Found(row, record, bad)


def _rows(batches: Iterator[pa.RecordBatch], row: int) -> Iterator[Found]:
    for batch in batches:
        for start in range(0, batch.num_rows, ROWS):
            for record in batch.slice(start, ROWS).to_pylist():
                row += 1
                yield Found(row, record)


_READERS: Final[dict[str, Callable[[Piece, Options], Iterator[Found]]]] = {
    "text": _text,
    "jsonl": _jsonl,
    "json": _json,
    "csv": _csv,
    "tsv": _csv,
    "dialog": _dialog,
    "parquet": _parquet,
    "arrow": _arrow,
    "sheets": _sheets,
}
