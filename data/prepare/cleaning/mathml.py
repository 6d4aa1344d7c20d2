"""Converts formulas in MathML to plain text: `10⁹`, `x₁`, `(a+b)/c`."""

from __future__ import annotations

import html
import re
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from data.prepare.cleaning.scripts import script

_FORMULA: Final = re.compile(
    r"<(?:[a-z]{1,8}:)?math(?=[\s>])[^<>]{0,2000}>(?:(?!</?(?:[a-z]{1,8}:)?math[\s>]).){0,20000}</(?:[a-z]{1,8}:)?math>",
    re.IGNORECASE | re.DOTALL,
)
_PREFIX: Final = re.compile(r"(?<=[</])[A-Za-z]{1,8}:(?=[A-Za-z])")
_ATTRIBUTES: Final = re.compile(r"(<[A-Za-z]+)\s[^<>]*?(/?>)")
_XML_ENTITIES: Final = re.compile(r"&(?!(?:lt|gt|amp|quot|apos);)[#A-Za-z0-9]{1,32};")
_HIDDEN: Final = frozenset(["annotation", "annotation-xml", "mphantom"])
_DEEPEST: Final = 64


def formulas_as_text(text: str) -> str:
    """Returns the text with formulas written out; source that is not well-formed MathML remains unchanged."""
    return _FORMULA.sub(lambda found: _formula(found[0]), text)


def _formula(source: str) -> str:
    plain = _ATTRIBUTES.sub(r"\1\2", _PREFIX.sub("", source))
    try:
        # The source begins at <math>, so it has no DTD, and thus no entity declarations.
        root = ElementTree.fromstring(_XML_ENTITIES.sub(lambda found: html.unescape(found[0]), plain))  # noqa: S314
    except ElementTree.ParseError:
        return source
    return source if _depth(root) > _DEEPEST else _written(root)


def _depth(element: Element) -> int:
    deepest, level = 0, [element]
    while level:
        deepest += 1
        level = [child for one in level for child in one]
    return deepest


def _written(element: Element) -> str:
    name = element.tag.lower()
    parts = [_written(child) for child in element if child.tag.lower() not in _HIDDEN]
    if name in ("msup", "mover") and len(parts) == 2:
        return parts[0] + script("sup", parts[1])
    if name in ("msub", "munder") and len(parts) == 2:
        return parts[0] + script("sub", parts[1])
    if name in ("msubsup", "munderover") and len(parts) == 3:
        return parts[0] + script("sub", parts[1]) + script("sup", parts[2])
    if name == "mfrac" and len(parts) == 2:
        return f"{_grouped(parts[0])}/{_grouped(parts[1])}"
    if name == "msqrt":
        return f"√{_grouped(''.join(parts))}"
    if name == "mroot" and len(parts) == 2:
        return f"{script('sup', parts[1])}√{_grouped(parts[0])}"
    if name == "mspace":
        return " "
    if name == "mtable":
        return "; ".join(parts)
    if name == "mtr":
        return " ".join(parts)
    own = (element.text or "").strip()
    return own + "".join(parts)


def _grouped(part: str) -> str:
    """Returns a part of a formula, in parentheses unless it is a single name or number."""
    return part if len(part) < 2 or part.replace(".", "").isalnum() else f"({part})"
