"""Finds the input files, in a fixed order, and splits them into the pieces that tasks read.

Pieces depend only on the files and not on the number of workers, so that the output is the same for any number.
"""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq

from data.files.lines import CHUNK, MIB, Unreadable, chunks, detect_encoding, line_starts
from data.files.sheets import require_reader
from data.hub_tables import hub_table_files, is_hub_table
from data.prepare.outputs import OUTPUTS
from data.tables import DataError

PIECE_BYTES: Final = 16 * MIB
FORMATS: Final = {
    ".txt": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".dialog": "dialog",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".xlsx": "sheets",
}
OF_HUB: Final = (".parquet", ".jsonl", ".json", ".csv", ".tsv")
TEXTUAL: Final = frozenset({"text", "jsonl", "json", "csv", "tsv", "dialog"})
_BY_LINES: Final = frozenset({"text", "jsonl"})
_SPREADSHEETS: Final = (".xls", ".ods")
_PACKED: Final = (".gz", ".zst")
_DATASET: Final = ("dataset_dict.json", "state.json")


@dataclass(frozen=True)
class Source:
    """One input file.

    Attributes:
        path: the file's path, as it was named or found.
        format: a value of `FORMATS`.
        bytes: the file's size in bytes.
        sha256: hash of the file's bytes, before decompression.
        encoding: encoding of a text file; empty for binary formats and for files that cannot be read.
        unreadable: why nothing can be read; empty otherwise.
    """

    path: str
    format: str
    bytes: int
    sha256: str
    encoding: str = ""
    unreadable: str = ""


@dataclass(frozen=True)
class Piece:
    """The part of a source that one task reads.

    Attributes:
        source: the file.
        start: first byte, or first row group of a Parquet file.
        end: end of the bytes or row groups, exclusive; None is the end of the file.
    """

    source: Source
    start: int = 0
    end: int | None = None


def find_files(inputs: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the files that `inputs` name, sorted and without duplicates, and the files that are left out.

    `inputs` are files, folders, patterns, and names that begin with hf://datasets/. Hidden files in a folder
    are skipped, and so are the files that a preparation writes next to its shards. Files of unknown formats that are in
    a folder or match a pattern are left out.

    Raises:
        DataError: a path does not exist, a pattern matches no file, a named file has an unknown format, or there is
            nothing to read.
        ConfigError: a dataset of the Hub is not available, or there are spreadsheets and the package that reads them is
            not installed.
    """
    found: dict[str, None] = {}
    left_out: dict[str, None] = {}
    for given in inputs:
        if is_hub_table(given):
            found.update(dict.fromkeys(map(str, hub_table_files(given, OF_HUB))))
            continue
        named = [given] if Path(given).exists() else sorted(glob.glob(given, recursive=True))
        if not named:
            raise DataError(
                f"--input {given}: there is no such file or folder, and no file matches it as a pattern; check the path "
                f"from {Path.cwd()}, or name a data set of the Hub as hf://datasets/ORG/NAME"
            )
        for name in named:
            if Path(name).is_dir():
                for file in _files_in(Path(name)):
                    (found if _format(file) else left_out)[file] = None
            elif _format(name):
                found[name] = None
            elif Path(name).suffix.lower() in _SPREADSHEETS:
                raise DataError(
                    f"--input {name}: is a spreadsheet of another kind than .xlsx; save it as .xlsx or .csv"
                )
            elif named == [given]:
                endings = " ".join(FORMATS)
                raise DataError(f"--input {given}: unknown file type; use {endings}, also with .gz or .zst")
            else:
                left_out[name] = None
    if any(_format(file) == "sheets" for file in found):
        require_reader()
    if not found:
        raise DataError(f"--input {' '.join(inputs)}: no file of a supported type; use {' '.join(FORMATS)}")
    return sorted(found), sorted(left_out)


def describe(path: str) -> Source:
    """Returns a file's size, hash, and encoding; reads one megabyte at a time.

    Raises:
        DataError: the file cannot be read.
    """
    file, digest, size = Path(path), hashlib.sha256(), 0
    kind = _format(path)
    try:
        with file.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    if size == 0:
        return Source(path, kind, 0, digest.hexdigest(), unreadable="the file is empty; leave it out")
    if kind not in TEXTUAL:
        return Source(path, kind, size, digest.hexdigest())
    try:
        return Source(path, kind, size, digest.hexdigest(), encoding=detect_encoding(file))
    except Unreadable as error:
        return Source(path, kind, size, digest.hexdigest(), unreadable=str(error))


def pieces_of(source: Source, piece_bytes: int = PIECE_BYTES) -> list[Piece]:
    """Returns the pieces of a source: large files are split at line ends or between row groups, if possible."""
    path = Path(source.path)
    if source.unreadable or path.suffix in _PACKED or source.bytes <= piece_bytes:
        return [Piece(source)]
    if source.format in _BY_LINES:
        starts = line_starts(path, piece_bytes)
        return [Piece(source, start, end) for start, end in zip(starts, [*starts[1:], source.bytes], strict=True)]
    if source.format == "parquet":
        try:
            groups = pq.ParquetFile(path).num_row_groups
        except (OSError, ValueError):  # reported when the file is read; ArrowInvalid is a ValueError
            return [Piece(source)]
        return [Piece(source, group, group + 1) for group in range(groups)] or [Piece(source)]
    return [Piece(source)]


def lines_in(piece: Piece) -> int:
    """Returns the number of lines in a part of a text file; 0 for pieces whose lines count from the file's start."""
    if piece.end is None or piece.source.format not in _BY_LINES:
        return 0
    return sum(chunk.count(b"\n") for chunk in chunks(Path(piece.source.path), piece.start, piece.end))


def _files_in(folder: Path, seen: set[Path] | None = None) -> list[str]:
    """Lists the files below a folder, each once, even if symbolic links lead to it repeatedly or in a cycle.

    For a saved `datasets` folder, lists the files that its state names, in that order.
    """
    seen = {folder.resolve()} if seen is None else seen
    if (folder / "state.json").is_file():
        try:
            state = json.loads((folder / "state.json").read_text("utf-8"))
            return [str(folder / file["filename"]) for file in state["_data_files"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder / 'state.json'}: not as `datasets` saves it; save the data set again") from error
    files: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in _DATASET or path.name in OUTPUTS:
            continue
        if (real := path.resolve()) in seen:
            continue
        seen.add(real)
        files += _files_in(path, seen) if path.is_dir() else [str(path)]
    return files


def _format(name: str) -> str:
    path = Path(name)
    if path.suffix in _PACKED:
        kind = FORMATS.get(path.with_suffix("").suffix.lower(), "")
        return kind if kind in TEXTUAL else ""
    return FORMATS.get(path.suffix.lower(), "")
