"""Parses one JSON value from text, or gives the reason why it cannot be used."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from configs.errors import DataError

DEEPEST: Final = 100
"""Maximum nesting of lists and objects in one value; Arrow, str(), and json.dumps fail somewhere above it."""
TOO_DEEP: Final = "not usable JSON: nested too deeply"
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
_OPENING: Final = re.compile(r"[\[{]")


def parse(text: str) -> Any:
    """Parses the JSON value in `text`.

    Raises:
        DataError: the text is not JSON, or holds a value that cannot be stored downstream; the message contains only
            the reason.
    """
    try:
        value = json.loads(text, object_pairs_hook=with_keys_once)
    except RecursionError as error:
        raise DataError(TOO_DEEP) from error
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON: {error.msg} at character {error.pos + 1}") from error
    except ValueError as error:  # a key given twice, an integer of thousands of digits
        raise DataError(f"not usable JSON: {error}") from error
    if reason := unusable(value, text):
        raise DataError(reason)
    return value


def with_keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Builds an object and rejects duplicate keys; json alone would silently keep the last of them.

    Raises:
        ValueError: a key is given twice.
    """
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key '{next(key for key in keys if keys.count(key) > 1)}' is given twice in one object")
    return value


def unusable(value: Any, text: str) -> str:
    """Returns why a parsed value cannot be used, although its `text` is valid JSON; empty if it can."""
    if len(_OPENING.findall(text)) > DEEPEST and _is_deep(value):
        return TOO_DEEP
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return "contains an unpaired surrogate, which is not a character"
    return ""


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, list | dict)
        ]
        if not level:
            return False
    return True
