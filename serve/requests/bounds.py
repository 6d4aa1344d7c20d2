"""Size limits of schemas and patterns. A slow grammar compilation in the engine's process delays other requests."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final

LONGEST_SCHEMA: Final = 32_768  # characters of JSON
DEEPEST: Final = 32
MOST_REPEATS: Final = 4096  # repetitions of one part, multiplied by those of the parts that contain it
LONGEST_PATTERN: Final = 1024  # characters
MOST_CHOICES: Final = 1024

_COUNTS: Final = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
_REPEATS: Final = re.compile(r"\{(\d*),?(\d*)\}")


def check_schema(schema: Mapping[str, Any], name: str) -> None:
    """Rejects a JSON schema whose grammar could take long to compile.

    Args:
        schema: the JSON schema.
        name: path of the schema in the request body, for the error message.

    Raises:
        ValueError: the schema is too long or too deep, its repetition bounds multiply to more than `MOST_REPEATS`, or
            it contains a pattern that `check_pattern` rejects.
    """
    if len(json.dumps(schema, ensure_ascii=False)) > LONGEST_SCHEMA:
        raise ValueError(f"{name}: the schema has more than {LONGEST_SCHEMA:,} characters; make it smaller")
    _check_part(schema, name, 1, 0)


def check_pattern(pattern: str, name: str, repeats: int = 1) -> None:
    """Rejects a regular expression that could compile to a large automaton.

    Args:
        pattern: the regular expression.
        name: path of the pattern in the request body, for the error message.
        repeats: product of the repetition bounds of the enclosing schema parts.

    Raises:
        ValueError: the pattern is too long, or its repetition bounds multiply to more than `MOST_REPEATS`.
    """
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"{name}: the pattern has more than {LONGEST_PATTERN:,} characters; make it shorter")
    counts = [max(int(low or 0), int(high or 0), 1) for low, high in _REPEATS.findall(pattern)]
    if repeats * math.prod(counts) > MOST_REPEATS:
        raise ValueError(f"{name}: the pattern's repeats multiply to more than {MOST_REPEATS:,}; use fewer")


def _check_part(part: Any, name: str, repeats: int, depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError(f"{name}: the schema is more than {DEEPEST} levels deep; make it flatter")
    if isinstance(part, list):
        for item in part:
            _check_part(item, name, repeats, depth + 1)
    if not isinstance(part, Mapping):
        return
    counts = [count for key in _COUNTS if isinstance(count := part.get(key), int | float)]
    repeats *= max(1, *map(int, counts)) if counts else 1
    if repeats > MOST_REPEATS:
        raise ValueError(f"{name}: repeats multiply to more than {MOST_REPEATS:,} ({', '.join(_COUNTS)}); use fewer")
    if isinstance(pattern := part.get("pattern"), str):
        check_pattern(pattern, name, repeats)
    for item in part.values():
        _check_part(item, name, repeats, depth + 1)
