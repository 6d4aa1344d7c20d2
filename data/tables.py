"""Arrow schemas of the tables that stages read; strict reading and atomic writing.

A table is one Arrow table with one row per sample. On disk it is Parquet, or JSON Lines (one JSON object per line) for
files written by hand. Both are read as the same Arrow table. A `DataError` states what is wrong with a file, and where.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.errors import DataError as DataError
from configs.errors import first_line
from data.files.records import json_lines
from data.hub_tables import hub_table_files, is_hub_table
from storage.durable import make_folder, replace_file

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
ENTITIES = pa.list_(
    pa.struct([("type", pa.string()), ("start", pa.int32()), ("end", pa.int32()), ("text", pa.string())])
)

PRETRAIN = pa.schema([("text", pa.string())])
SFT = pa.schema([("messages", MESSAGES), ("task", pa.string())])
PREFERENCE = pa.schema(
    [("prompt", MESSAGES), ("chosen", pa.string()), ("rejected", pa.string()), ("flaw", pa.string())]
)
PREFERENCE_WITH_MARGIN = PREFERENCE.append(pa.field("margin", pa.float32()))
PROMPTS = pa.schema([("prompt", MESSAGES)])
NER = pa.schema([("text", pa.string()), ("entities", ENTITIES)])
CHOICE = pa.schema(
    [("question", pa.string()), ("options", pa.list_(pa.string())), ("answer", pa.int32()), ("subject", pa.string())]
)
OPEN = pa.schema([("question", pa.string()), ("reference", pa.string())])

MAY_LACK: dict[str, Any] = {"task": "", "flaw": "", "margin": 0.0}
"""Columns that a table for training may lack, each with the value that all rows have in that case."""

_LARGEST = 3.4028234663852886e38
"""The largest 32-bit float; a larger number would become infinite."""


def read_table(
    paths: str | Path | Sequence[str | Path],
    schema: pa.Schema,
    others: bool = False,
    may_lack: Mapping[str, Any] | None = None,
) -> pa.Table:
    """Reads one or several .parquet or .jsonl files as one table of exactly `schema`, rows in the order of `paths`.

    Args:
        paths: files; folders, such as those that `python -m data.prepare` writes, which stand for their Parquet files,
            sorted by name; or hf://datasets/org/name, which stands for the files of a dataset of the Hugging Face Hub
            (see data/hub_tables.py).
        schema: the columns, each of which must exist, without nulls. A wider type of the same kind (integer, float,
            string) is narrowed if nothing is lost; an integer is accepted for a float.
        others: whether to keep columns that are not in `schema`; they must have the same types in every file. By
            default they are an error.
        may_lack: columns that a file may lack, each with the value that all of its rows have in that case.

    Raises:
        DataError: a file is missing, unreadable, or empty; a column is missing, unknown, or has a wrong type; or a
            value is null or does not fit its column's type.
        ConfigError: a dataset of the Hub is not available.
    """
    listed = [file for path in ([paths] if isinstance(paths, str | Path) else paths) for file in table_files(path)]
    if not listed:
        raise DataError("no data files given: name at least one .parquet or .jsonl file")
    tables = [_read_file(Path(path), schema, others, may_lack or {}) for path in listed]
    for path, table in zip(listed, tables, strict=True):
        if table.schema != tables[0].schema:
            raise DataError(
                f"{path}: its columns are not those of {listed[0]}; give all files the same columns and types"
            )
    return pa.concat_tables(tables)


def table_files(path: str | Path) -> list[Path]:
    """Returns the files of a table: the file itself, the Parquet files of a folder, or those of a Hub dataset.

    Raises:
        DataError: a folder has no Parquet files.
        ConfigError: a dataset is not available; see `data.hub_tables.hub_table_files`.
    """
    if isinstance(path, str) and is_hub_table(path):
        return hub_table_files(path)
    path = Path(path)
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.parquet"))
    if not files:
        raise DataError(f"{path}: a folder without .parquet files; name a table, or a folder that data.prepare made")
    return files


def write_table(table: pa.Table, path: str | Path) -> None:
    """Writes a Parquet file atomically (temporary file, fsync, rename), so that a partial file is never visible.

    Raises:
        DataError: `path` does not end in .parquet.
        DiskError: the disk is full or not writable.
    """
    path = Path(path)
    if path.suffix != ".parquet":
        raise DataError(f"{path}: tables are written as Parquet; let the name end in .parquet")
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    make_folder(path.parent)
    replace_file(path, memoryview(sink.getvalue()))


def column_values(table: pa.Table, name: str) -> list[Any]:
    """Returns the values of a column as Python objects."""
    return table.column(name).to_pylist()


def _read_file(path: Path, schema: pa.Schema, others: bool, may_lack: Mapping[str, Any]) -> pa.Table:
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the path, or write the sample data with `python -m data.clinic`")
    if path.suffix == ".parquet":
        table = _read_parquet(path, schema, others, may_lack)
    elif path.suffix == ".jsonl":
        table = _read_jsonl(path, schema, others, may_lack)
    else:
        raise DataError(f"{path}: unknown file type; convert it to .parquet or .jsonl")
    if table.num_rows == 0:
        raise DataError(f"{path}: the table has no rows; leave the file out or fill it")
    return table


def _check_columns(
    found: Sequence[str], schema: pa.Schema, where: str, others: bool, may_lack: Mapping[str, Any]
) -> None:
    for name in schema.names:
        if name not in found and name not in may_lack:
            raise DataError(f"{where}: column '{name}' is missing; expected the columns {', '.join(schema.names)}")
    for name in found:
        if name not in schema.names and not others:
            raise DataError(
                f"{where}: unknown column '{name}'; drop it, or rename it to one of {', '.join(schema.names)}"
            )


def _read_parquet(path: Path, schema: pa.Schema, others: bool, may_lack: Mapping[str, Any]) -> pa.Table:
    try:
        table = pq.read_table(path, partitioning=None)
        table.validate(full=True)  # text may hold bytes that are not UTF-8
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not readable as Parquet ({first_line(error)}); write the file again") from error
    _check_columns(table.column_names, schema, str(path), others, may_lack)
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.repeat(pa.scalar(may_lack[field.name], field.type), table.num_rows))
            continue
        column = table.column(field.name).combine_chunks()
        if not _same_kind(column.type, field.type):
            raise DataError(f"{path}: column '{field.name}' has type {column.type}; it must be {field.type}")
        row = _first_null_row(column)
        if row is not None:
            raise DataError(f"{path}: row {row}: column '{field.name}' holds a null; fill the value or drop the row")
        try:
            columns.append(column.cast(field.type))
        except pa.ArrowException as error:
            raise DataError(f"{path}: column '{field.name}' does not fit {field.type}: {first_line(error)}") from error
    read = pa.Table.from_arrays(columns, schema=schema)
    for name in table.column_names:
        if name not in schema.names:
            read = read.append_column(name, table.column(name).combine_chunks())
    return read


def _same_kind(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Returns whether values of type `found` can be cast to `wanted`: equal up to width, or an integer for a float.

    Types equal up to width are, for example, string and large_string, int64 and int32, list and large_list.
    """
    if pa.types.is_struct(wanted):
        if not pa.types.is_struct(found) or [f.name for f in found] != [f.name for f in wanted]:
            return False
        return all(_same_kind(f.type, w.type) for f, w in zip(found, wanted, strict=True))
    if pa.types.is_list(wanted):
        listed = pa.types.is_list(found) or pa.types.is_large_list(found)
        return listed and _same_kind(found.field(0).type, wanted.field(0).type)
    if pa.types.is_string(wanted):
        return bool(pa.types.is_string(found) or pa.types.is_large_string(found))
    if pa.types.is_floating(wanted):
        return bool(pa.types.is_floating(found) or pa.types.is_integer(found))
    return bool(pa.types.is_integer(wanted) and pa.types.is_integer(found))


def _first_null_row(column: pa.Array[Any]) -> int | None:
    """Returns the index of the first row that holds a null, at the top level or nested, or None."""
    if column.null_count:
        return int(pc.index(column.is_null(), True).as_py())
    if isinstance(column, pa.StructArray):
        rows = [_first_null_row(child) for child in column.flatten()]
        return min((row for row in rows if row is not None), default=None)
    if isinstance(column, pa.ListArray | pa.LargeListArray):
        inner = _first_null_row(column.flatten())
        return None if inner is None else int(pc.list_parent_indices(column)[inner].as_py())
    return None


def _read_jsonl(path: Path, schema: pa.Schema, others: bool, may_lack: Mapping[str, Any]) -> pa.Table:
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    for number, row in json_lines(path):
        where = f"{path}:{number}"
        if not isinstance(row, dict):
            raise DataError(f"{where}: holds {_json_kind(row)}; write one JSON object a line")
        _check_columns(list(row), schema, where, others, may_lack)
        row = {**{name: may_lack[name] for name in schema.names if name not in row}, **row}
        for field in schema:
            _check_value(row[field.name], field.type, f"{where}: {field.name}")
            if pa.types.is_floating(field.type):
                row[field.name] = float(row[field.name])  # Arrow rejects an integer that a float would round
        rows.append(row)
        numbers.append(number)
    read = pa.Table.from_pylist(rows, schema=schema)
    for name in dict.fromkeys(name for row in rows for name in row if name not in schema.names):
        values = [row.get(name) for row in rows]
        column = _column(values)
        if column is None:
            # If a prefix has no common type, no longer prefix has one, so bisection finds the first offending row.
            bad = bisect(range(1, len(values)), False, key=lambda count: _column(values[:count]) is None)
            raise DataError(
                f"{path}:{numbers[bad]}: column '{name}' holds a value that does not fit the type of those before it, or "
                "64 bits; give the column one type"
            )
        read = read.append_column(name, column)
    return read


def _column(values: list[Any]) -> pa.Array[Any] | None:
    """Returns the values as a column of a type that fits them all; None if there is no such type."""
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        return None


def _check_value(value: Any, wanted: pa.DataType, where: str) -> None:
    """Checks a decoded JSON value against an Arrow type; messages name the path inside it (`messages[2].role`)."""
    if pa.types.is_list(wanted):
        if not isinstance(value, list):
            raise DataError(f"{where}: holds {_json_kind(value)}; it must be a list")
        for index, item in enumerate(value):
            _check_value(item, wanted.value_type, f"{where}[{index}]")
    elif pa.types.is_struct(wanted):
        names = [field.name for field in wanted]
        if not isinstance(value, dict) or sorted(value) != sorted(names):
            found = sorted(value) if isinstance(value, dict) else _json_kind(value)
            raise DataError(f"{where}: holds {found}; it must be an object with {', '.join(names)}")
        for field in wanted:
            _check_value(value[field.name], field.type, f"{where}.{field.name}")
    elif pa.types.is_string(wanted):
        if not isinstance(value, str):
            raise DataError(f"{where}: holds {_json_kind(value)}; it must be a string")
    elif pa.types.is_floating(wanted):
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
            raise DataError(
                f"{where}: holds {_json_kind(value)} {_short(value)}; it must be a finite number of 32 bits"
            )
    elif isinstance(value, bool) or not isinstance(value, int) or not -(2**31) <= value < 2**31:
        raise DataError(f"{where}: holds {_json_kind(value)} {_short(value)}; it must be a whole number of 32 bits")


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:40]}..."


def _json_kind(value: Any) -> str:
    if value is None:
        return "a null"
    kinds = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return kinds[type(value)]
