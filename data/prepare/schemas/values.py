"""Checked access to the values of a record's columns: texts, numbers, and the names of other types."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from data.tables import DataError


class UnknownColumnsError(DataError):
    """No known schema has the columns of a record; `reason` is the message without the hint about `--map`."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(f"{reason}; {hint}")
        self.reason = reason


def string(value: Any, name: str) -> str:
    """Returns a text, which may be in a list of one text, in a single turn, or in parts of type `text`.

    Raises:
        DataError: the value has another form, or has a part of another type.
    """
    if isinstance(value, list) and value and all(_is_part(one) for one in value):
        if other := next((str(one["type"]) for one in value if one["type"] != "text"), ""):
            raise DataError(f"{name} has a part of type {other}; only texts can be trained on")
        value = "\n".join(one["text"] for one in value if isinstance(one.get("text"), str))
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, Mapping) and isinstance(value.get("value", value.get("content")), str):
        value = value.get("value", value.get("content"))
    if not isinstance(value, str):
        raise DataError(f"{name} holds {kind_of(value)}; it must be a text")
    return value


def _is_part(value: Any) -> bool:
    """Returns whether a value is a part of a message as in OpenAI's API, such as a text, an image, or audio."""
    return isinstance(value, Mapping) and isinstance(value.get("type"), str) and "role" not in value


def optional_string(record: Mapping[str, Any], name: str) -> str:
    """Returns a column's text; empty if the column is missing or null."""
    value = record.get(name)
    return "" if value is None else string(value, name)


def number(value: Any, name: str) -> float:
    """Returns a finite number, which may be written as a text, as in CSV.

    Raises:
        DataError: the value is not a finite number.
    """
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise DataError(f"{name} holds {value!r}; it must be a number")
    return found


def kind_of(value: Any) -> str:
    """Returns a description of a value's type, for error messages."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    names = {
        type(None): "nothing",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a text",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)
