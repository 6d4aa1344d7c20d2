"""Parquet files that say what they are and cannot be damaged unnoticed.

Among a file's Parquet metadata (`pyarrow.parquet.read_metadata`) is the SHA-256 of all its bytes, taken with the checksum's
own 64 digits as zeros. Any reader of Parquet can read such a file; `read_sealed` also notices every changed byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import RunError
from storage.durable import make_folder, replace_file, writing

KEY = "checksum"
_MARK = b"sha256:"
_DIGITS = 64


class DamagedTable(RunError):
    """A sealed file that is not what was written; the message names it."""


def write_sealed(path: Path, table: pa.Table, facts: Mapping[str, str], *, synced: bool = True) -> None:
    """Writes `table` with `facts` as the file's metadata: aside, synced, renamed. Raises DiskError."""
    sink = pa.BufferOutputStream()
    table = table.replace_schema_metadata(dict(facts))
    with pq.ParquetWriter(sink, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({KEY: _MARK.decode() + "0" * _DIGITS})
    content = bytearray(sink.getvalue())
    place = content.rindex(_MARK) + len(_MARK)
    content[place : place + _DIGITS] = hashlib.sha256(content).hexdigest().encode()
    make_folder(path.parent)
    replace_file(path, content, synced=synced)


def read_sealed(path: Path) -> tuple[pa.Table, dict[str, str]]:
    """The table and its facts. Raises DamagedTable unless every byte is as it was written."""
    try:
        content = bytearray(path.read_bytes())
    except OSError as error:
        raise DamagedTable(f"{path}: not readable ({error.strerror})") from error
    if _MARK not in content:
        raise DamagedTable(f"{path}: damaged, or by an earlier version (there is no checksum in it)")
    place = content.rindex(_MARK) + len(_MARK)
    seal = bytes(content[place : place + _DIGITS])
    content[place : place + _DIGITS] = b"0" * _DIGITS
    if hashlib.sha256(content).hexdigest().encode() != seal:
        raise DamagedTable(f"{path}: damaged or cut off (its SHA-256 is not the one in it)")
    table = pq.read_table(pa.BufferReader(bytes(content)))
    facts = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    return table.replace_schema_metadata(None), facts


def read_or_put_aside(path: Path, then: str) -> tuple[pa.Table, dict[str, str]] | None:
    """As `read_sealed`, or None when there is no such file, or a damaged one.

    That one is said, with what `then` happens, and renamed to end in `.damaged`, so that it counts for nothing.
    """
    if not path.exists():
        return None
    try:
        return read_sealed(path)
    except DamagedTable as error:
        aside = path.with_name(path.name + ".damaged")
        with writing(path):
            path.replace(aside)
        print(f"{error}; kept as {aside.name}, {then}", flush=True)
        return None
