"""Kubernetes quantities: `500m`, `4`, `16Gi`."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

_SUFFIXES = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_PATTERN = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([KMGTPE]i|[numkMGTPE]?))")


def quantity(value: Any) -> Decimal | None:
    """Returns the value of a quantity; None if it is not one, which the schemas report."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    found = _PATTERN.fullmatch(str(value))
    if found is None:
        return None
    number, exponent, suffix = found.groups()
    if exponent:
        return Decimal(number + exponent)
    if suffix in _BINARY:
        return Decimal(number) * 2 ** _BINARY[suffix]
    return Decimal(number).scaleb(_SUFFIXES[suffix])
