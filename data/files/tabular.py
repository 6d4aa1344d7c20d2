"""Reads comma- and tab-separated records; a stray quote invalidates only its own line, not the rest of the file."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

MOST_LINES: Final = 1000
"""Maximum lines of a quoted cell; beyond it, the quote is treated as a stray one."""
_LARGEST_CELL: Final = 2**31 - 1  # the largest limit that the csv module accepts on every platform


def read_csv(
    texts: Iterator[tuple[int, str, str]], delimiter: str, longest: int
) -> Iterator[tuple[int, dict[str, Any] | None, str]]:
    """Yields records as `(line, record, reason)` from numbered lines `(line, text, reason)`.

    The reason states why a record or line was rejected; it is empty for a valid one. The first record is the header,
    whose names are the keys of all other records. If a record cannot be read, its first line is rejected, and reading
    continues at its second line.
    """
    csv.field_size_limit(min(longest, _LARGEST_CELL))
    waiting: deque[tuple[int, str, str]] = deque()
    head: list[str] | None = None
    while True:
        taken = _next_record(waiting, texts, delimiter, head)
        if not taken:
            return
        line, _, bad = taken[0]
        if bad:
            yield line, None, bad
            waiting.extendleft(reversed(taken[1:]))
            continue
        joined = "\n".join(text for _, text, _ in taken)
        if head is None:
            head = _cells(joined, delimiter)
            if head is None:
                yield line, None, "the header line is not readable: a quote is not closed"
                return
            names = [name for name in map(str.strip, head) if name]
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                yield line, None, f"the header line names the column '{twice}' twice; rename one of them"
                return
            continue
        if not joined.strip():
            continue
        cells = _cells(joined, delimiter)
        if cells is None or len(cells) != len(head):
            found = "a quote is not closed or occurs inside a cell" if cells is None else f"{len(cells)} cells"
            yield line, None, f"{found}; the header line has {len(head)} columns"
            waiting.extendleft(reversed(taken[1:]))
            continue
        yield line, dict(zip(head, cells, strict=True)), ""


def head_of(texts: Iterator[tuple[int, str, str]], delimiter: str) -> list[str]:
    """Returns the column names in a file's header; empty if the file has no lines or a quote is not closed."""
    taken = _next_record(deque(), texts, delimiter, None)
    return _cells("\n".join(text for _, text, _ in taken), delimiter) or []


def _next_record(
    waiting: deque[tuple[int, str, str]],
    texts: Iterator[tuple[int, str, str]],
    delimiter: str,
    head: list[str] | None,
) -> list[tuple[int, str, str]]:
    """Returns the lines of the next record: one, or more while a quote is open; empty at the end.

    Inside a cell that does not begin with a quote, quotes are ordinary characters.
    """
    taken: list[tuple[int, str, str]] = []
    open_quote = False
    while len(taken) < MOST_LINES:
        numbered = waiting.popleft() if waiting else next(texts, None)
        if numbered is None:
            return taken
        taken.append(numbered)
        open_quote ^= numbered[1].count('"') % 2 == 1
        if open_quote and len(taken) == 1 and head:
            alone = _cells(numbered[1], delimiter)
            open_quote = alone is None or len(alone) != len(head)
        if numbered[2] or not open_quote:
            return taken
    return taken


def _cells(text: str, delimiter: str) -> list[str] | None:
    try:
        rows = list(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error:
        return None
    return rows[0] if len(rows) == 1 else None
