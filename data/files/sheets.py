"""Reads the rows of a workbook's sheets (.xlsx) as records of text, as if the same sheet were saved as CSV."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

from configs.errors import ConfigError
from data.files.lines import Unreadable

INSTALL: Final = (
    "spreadsheets are read by openpyxl, which is not installed: pip install openpyxl, or save the sheet as .csv"
)


def require_reader() -> None:
    """Checks that the package that reads workbooks is installed.

    Raises:
        ConfigError: the package is not installed.
    """
    try:
        import openpyxl  # noqa: F401
    except ImportError as error:
        raise ConfigError(INSTALL) from error


def read_sheets(path: Path) -> Iterator[tuple[int, dict[str, str] | None, str]]:
    """Yields records as `(row, record, reason)`; row numbers continue from sheet to sheet.

    The reason states why a row or sheet was rejected; the record is then None. For a valid record, it is empty.

    The first row of a sheet that is not empty is its header. Numbers are written with all stored digits, or as a
    percentage if the cell has a percent format; dates are written in ISO 8601. Formulas without a stored result, error
    values, rows wider than the header, headers that do not name every column exactly once, and hidden sheets are
    rejected.

    Raises:
        Unreadable: the file is not a workbook.
    """
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        # Load both results and formulas, to distinguish an empty cell from a result that was never stored.
        books = [load_workbook(path, read_only=True, data_only=results) for results in (True, False)]
    except (BadZipFile, InvalidFileException, KeyError, OSError, ValueError) as error:
        raise Unreadable(f"not readable as a workbook ({error})") from error
    try:
        done = 0
        for sheet, formulas in zip(*(book.worksheets for book in books), strict=True):
            if sheet.sheet_state != "visible":
                yield done + 1, None, f"sheet {sheet.title} is hidden and left out"
                continue
            row = 0
            for row, record, bad in _records(sheet, formulas):
                yield done + row, record, bad and f"sheet {sheet.title}, row {row}: {bad}"
            done += row
    finally:
        for book in books:
            book.close()


def _records(sheet: Any, formulas: Any) -> Iterator[tuple[int, dict[str, str] | None, str]]:
    head: list[str] = []
    for row, (cells, written) in enumerate(zip(sheet.iter_rows(), formulas.iter_rows(), strict=True), start=1):
        bad = next(filter(None, map(_fault, cells, written)), "")
        texts = [_text(cell) for cell in cells]
        while texts and not texts[-1]:
            texts.pop()
        if bad:
            yield row, None, bad
        elif not texts:
            continue
        elif not head:
            head = [text.strip() for text in texts]
            if "" in head or len(set(head)) < len(head):
                yield row, None, "the sheet cannot be read: its first row must name every column once"
                return
        elif len(texts) > len(head):
            yield row, None, f"{len(texts)} cells; the header has {len(head)} columns"
        else:
            yield row, dict(zip(head, texts + [""] * (len(head) - len(texts)), strict=True)), ""


def _fault(cell: Any, written: Any) -> str:
    if written.data_type == "f" and cell.value is None:
        return f"{written.coordinate} is a formula without a stored result; open the file in a spreadsheet program and save it"
    return f"{cell.coordinate} is {cell.value}" if cell.data_type == "e" else ""


def _text(cell: Any) -> str:
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(sep=" ")
    if isinstance(value, int | float):
        percent = "%" in (cell.number_format or "")
        number = Decimal(repr(value)) * (100 if percent else 1)
        plain = f"{number:f}"
        return (plain.rstrip("0").rstrip(".") if "." in plain else plain) + "%" * percent
    return str(value)
