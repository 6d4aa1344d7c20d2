"""Parquet files with metadata and a checksum that detects any damage.

A file's Parquet metadata (`pyarrow.parquet.read_metadata`) contains the SHA-256 of all its bytes, computed with the
checksum's own 64 digits set to zeros. Any Parquet reader can read such a file; `read_checksummed` also detects every
changed byte.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import RunError
from storage.durable import make_folder, replace_file, writing

logger = logging.getLogger(__name__)

KEY = "checksum"
_MARK = b"sha256:"
_DIGITS = 64


class DamagedTable(RunError):
    """A checksummed Parquet file does not have the content that was written. The message names the file."""


def write_checksummed(path: Path, table: pa.Table, facts: Mapping[str, str], *, synced: bool = True) -> None:
    """Writes `table` with `facts` as the file's metadata, atomically: temporary file, fsync, rename.

    Args:
        path: the file to write; its folder is created.
        table: the rows.
        facts: the file's metadata, which `read_checksummed` returns.
        synced: whether to fsync, so that the file survives a power failure.

    Raises:
        DiskError: the file cannot be written.
    """
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


def read_checksummed(path: Path) -> tuple[pa.Table, dict[str, str]]:
    """Returns the table and its metadata.

    Raises:
        DamagedTable: the file is unreadable, or any byte differs from what was written.
    """
    try:
        content = bytearray(path.read_bytes())
    except OSError as error:
        raise DamagedTable(f"{path}: not readable ({error.strerror})") from error
    if _MARK not in content:
        raise DamagedTable(f"{path}: damaged, or written by an earlier version (it has no checksum)")
    place = content.rindex(_MARK) + len(_MARK)
    seal = bytes(content[place : place + _DIGITS])
    content[place : place + _DIGITS] = b"0" * _DIGITS
    if hashlib.sha256(content).hexdigest().encode() != seal:
        raise DamagedTable(f"{path}: damaged or truncated (its SHA-256 does not match the stored one)")
    table = pq.read_table(pa.BufferReader(bytes(content)))
    facts = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    return table.replace_schema_metadata(None), facts


def read_or_set_aside(path: Path, then: str) -> tuple[pa.Table, dict[str, str]] | None:
    """Reads a file like `read_checksummed`, but returns None if it does not exist or is damaged.

    A damaged file is renamed with the suffix `.damaged`, so that it is ignored from then on. The warning that is logged
    ends with the consequence, `then`.

    Raises:
        DiskError: the damaged file cannot be renamed.
    """
    if not path.exists():
        return None
    try:
        return read_checksummed(path)
    except DamagedTable as error:
        aside = path.with_name(path.name + ".damaged")
        with writing(path):
            path.replace(aside)
        logger.warning("%s; kept as %s, %s", error, aside.name, then)
        return None
