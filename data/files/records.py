"""Strict readers of text files, which yield numbered lines or records, or raise a `DataError` for an invalid one.

All of them read UTF-8, with or without a byte order mark, and GB18030; the error for UTF-16 names the encoding. Lines
end with LF or CR LF only. `data.prepare` uses the same underlying readers, but skips invalid records.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from configs.errors import DataError
from data.files.json_list import begins_list, elements
from data.files.json_text import parse
from data.files.lines import Unreadable, chunks, detect_encoding, lines
from data.files.tabular import head_of, read_csv

Value = TypeVar("Value")


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the lines of a file as `(number from 1, text)`.

    Raises:
        DataError: the file cannot be opened or is not text, or a line is not in the file's encoding or holds a null
            byte.
    """
    encoding = _encoding(path)
    yield from _strict(path, lines(chunks(path), encoding, sys.maxsize))


def whole_text(path: Path) -> str:
    """Returns the text of a file without its byte order mark; CR LF becomes LF.

    Raises:
        DataError: see `text_lines`.
    """
    text = "".join(f"{line}\n" for _, line in text_lines(path))
    last = deque(chunks(path), maxlen=1)
    return text if last and last[0].endswith(b"\n") else text.removesuffix("\n")


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yields the values of a file with one JSON value per line as `(line, value)`; blank lines are skipped.

    Raises:
        DataError: see `text_lines`; or a line is not usable JSON.
    """
    for number, text in text_lines(path):
        if not text.strip():
            continue
        try:
            value = parse(text)
        except DataError as error:
            raise DataError(f"{path}:{number}: {error}; write one JSON object a line") from error
        yield number, value


def json_records(path: Path) -> Iterator[tuple[int, Any]]:
    """Yields the elements of a JSON list, or the values of JSON Lines, as `(first line, value)`.

    Raises:
        DataError: see `json_lines`; or the list is truncated or damaged.
    """
    encoding = _encoding(path)
    if begins_list(str(path)):
        yield from _strict(path, elements(str(path), encoding, sys.maxsize))
    else:
        yield from json_lines(path)


def csv_head(path: Path) -> list[str]:
    """Returns the column names in the header of a CSV file; empty if the file is empty.

    Raises:
        DataError: see `csv_rows`.
    """
    return head_of(((number, text, "") for number, text in text_lines(path)), ",")


def csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields the rows below the header of a CSV file as `(first line, cell by column name)`.

    Raises:
        DataError: see `text_lines`; or a row does not have as many cells as the header.
    """
    encoding = _encoding(path)
    yield from _strict(path, read_csv(lines(chunks(path), encoding, sys.maxsize), ",", sys.maxsize))


def _encoding(path: Path) -> str:
    try:
        return detect_encoding(path)
    except Unreadable as error:
        raise DataError(f"{path}: {error}") from error


def _strict(path: Path, found: Iterable[tuple[int, Value, str]]) -> Iterator[tuple[int, Any]]:
    """Yields `(line, value)` for each `(line, value, reason)` of a reader; the reason is empty for a valid value.

    Raises:
        DataError: a value was rejected, or the file is not readable.
    """
    line = 0
    try:
        for line, value, bad in found:
            if bad:
                raise DataError(f"{path}:{line}: {bad}")
            yield line, value
    except Unreadable as error:
        raise DataError(f"{path}:{line + 1}: {error}" if line else f"{path}: {error}") from error
