"""Reads the records of a file that is one JSON object: a list under a key such as `data`, or a record under each id."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from data.files.lines import Unreadable

_LISTS: Final = (
    "data",
    "train",
    "rows",
    "records",
    "RECORDS",
    "examples",
    "items",
    "instances",
    "dialogues",
    "list",
    "results",
    "result",
    "samples",
    "entries",
    "test",
    "validation",
    "valid",
    "val",
    "dev",
)
_TURN: Final = frozenset({"role", "from", "speaker"})
_NOT_JSON: Final = object()


def object_records(lines: Iterator[tuple[int, str, str]], longest: int) -> list[Any] | None:
    """Returns the records of the object in these numbered lines, or None if they are JSON Lines.

    Args:
        lines: `(number, text, reason it was rejected)` of each line; the reason is empty for a valid line.
        longest: maximum number of characters of an object.

    Raises:
        Unreadable: the object has more than `longest` characters, or holds several lists of records.
    """
    kept: list[str] = []
    size = 0
    for _, text, bad in lines:
        if bad:
            return None
        if not text.strip():
            continue
        kept.append(text)
        size += len(text)
        if len(kept) == 2 and _parsed(kept[0]) is not _NOT_JSON:
            return None
        if size > longest:
            if kept[0].rstrip().endswith(("{", "[", ",")):
                raise Unreadable(
                    f"is one JSON object of more than {longest:,} characters; save only its list of records, or raise "
                    "--max-row-bytes"
                )
            return None
    value = _parsed("\n".join(kept))
    return unwrapped(value) if isinstance(value, Mapping) else None


def unwrapped(value: Mapping[str, Any]) -> list[Any]:
    """Returns the records of an object.

    These are the elements of its only list of records, its rows if it consists of columns, its values if all are
    objects, or the object itself. Values that are objects get their key as `id`, unless they have one.

    Raises:
        Unreadable: there are several lists of records.
    """
    lists = [name for name in _LISTS if _holds_records(value.get(name))]
    if len(lists) > 1:
        raise Unreadable(
            f"holds several lists of records ({', '.join(lists)}); save the list to use in a separate file"
        )
    if lists:
        found: list[Any] = value[lists[0]]
        return found
    if rows := _of_columns(value):
        return rows
    if value and all(isinstance(one, Mapping) for one in value.values()):
        return [{"id": name, **one} for name, one in value.items()]
    return [value]


def _of_columns(value: Mapping[str, Any]) -> list[Any]:
    """Returns the rows of an object of columns, as pandas and `datasets` write it; empty for any other object.

    A column is an object of cells by row number, or a list of cells.
    """
    columns = list(value.values())
    if len(columns) < 2 or "questions" in value:  # a record of Huatuo-26M has two lists, too
        return []
    if all(isinstance(one, Mapping) and one and all(name.isdigit() for name in one) for one in columns):
        columns = [list(one.values()) for one in columns if one.keys() == columns[0].keys()]
    elif not all(isinstance(one, list) and len(one) > 1 for one in columns):
        return []
    cells = [cell for column in columns for cell in column]
    if (
        len(columns) < len(value)
        or len({len(one) for one in columns}) > 1
        or any(isinstance(one, Mapping) for one in cells)
    ):
        return []
    return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]


def _holds_records(value: Any) -> bool:
    """Returns whether a value is a list of objects or lists that are not a conversation's turns."""
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(one, list) or (isinstance(one, Mapping) and not _TURN & set(one)) for one in value)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _NOT_JSON
