"""Finds telephone numbers of mainland China: by the numbering plan, or after a label."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from data.prepare.privacy.context import NUMBER_LINK, is_measured, is_other_number
from data.prepare.privacy.kinds import Span

_GAP: Final = r"(?:[ ]?[-－–—‐‑][ ]?|[ ])"
_COUNTRY: Final = rf"(?:[(（]?(?:\+|00)?86[)）]?{_GAP}?)"
_CITY: Final = r"(?:10|2[0-9]|[3-9][0-9]{2})"
_LOCAL: Final = rf"[2-9][0-9]{{2,3}}{_GAP}?[0-9]{{4}}"
_MOBILE: Final = (
    rf"1[3-9][0-9](?:{_GAP}?[0-9]{{4}}{_GAP}?[0-9]{{4}}|{_GAP}[0-9]{{3}}{_GAP}[0-9]{{5}}|"
    rf"[0-9]{_GAP}[0-9]{{3}}{_GAP}[0-9]{{4}}|[0-9]{_GAP}[0-9]{{4}}{_GAP}[0-9]{{3}}|\.[0-9]{{4}}\.[0-9]{{4}})"
)
_EXTENSION: Final = r"(?:(?:[ ]?(?:转|分机|转分机|ext\.?)[ :：]?|-)[0-9]{1,5}(?![0-9]))?"
_BY_FORM: Final = (
    re.compile(rf"(?<![0-9A-Za-z.]){_COUNTRY}?{_MOBILE}(?![0-9])"),
    re.compile(
        rf"(?<![0-9A-Za-z.])(?:{_COUNTRY}?(?:[(（]0{_CITY}[)）]{_GAP}?|0{_CITY}{_GAP})|"
        rf"[(（]?(?:\+|00)86[)）]?{_GAP}?(?:[(（]0?{_CITY}[)）]|0?{_CITY}){_GAP}?|86-0?{_CITY}-)"
        rf"{_LOCAL}(?![0-9]){_EXTENSION}"
    ),
    re.compile(
        rf"(?<![0-9A-Za-z.-])[48]00(?:{_GAP}?[0-9]{{3}}{_GAP}?[0-9]{{4}}|{_GAP}[0-9]{{4}}{_GAP}[0-9]{{3}}|[0-9]{_GAP}[0-9]{{3}}{_GAP}[0-9]{{3}})(?![0-9])"
    ),
)
_ANY: Final = r"(?<![0-9])[+(（]?[0-9](?:[-()（）－–—‐ ]{0,2}[0-9]){6,14}(?![0-9])"
_NUMBER: Final = re.compile(_ANY)
_LABELED: Final = re.compile(
    r"(?:电[ ]?话|手[ ]?机|座机|固话|总机|热线|传真|小灵通|联系方式|联系号码|拨打|致电|电联|(?<![A-Za-z])(?:tel|telephone|phone|mobile|mob|fax|cell))"
    rf"(?:号码|号)?(?:\.[ ]?)?(?:[(（]0[0-9]{{2,3}}[)）](?=[:：]))?{NUMBER_LINK}({_ANY}{_EXTENSION}(?:[ ]?[、/，,;；或和][ ]?{_ANY}{_EXTENSION})*)",
    re.IGNORECASE,
)
_DATE: Final = re.compile(r"(?:19|20)[0-9]{2}([- ]?)(?:0?[1-9]|1[0-2])\1(?:0?[1-9]|[12][0-9]|3[01])")


def find_phones(text: str) -> Iterator[Span]:
    """Yields mobile, 400, and 800 numbers and landlines with area code; after a label, any number of 7 to 15 digits."""
    for found in _LABELED.finditer(text):
        for number in _NUMBER.finditer(text, *found.span(1)):
            if not _DATE.fullmatch(number[0]) and not is_measured(text, number.end()):
                yield Span(number.start(), _extended(text, number.end()), "phone")
    for pattern in _BY_FORM:
        for found in pattern.finditer(text):
            if not is_measured(text, found.end()) and not is_other_number(text, found.start()):
                yield Span(*found.span(), "phone")


_BEHIND: Final = re.compile(_EXTENSION, re.IGNORECASE)


def _extended(text: str, end: int) -> int:
    found = _BEHIND.match(text, end)
    return found.end() if found else end
