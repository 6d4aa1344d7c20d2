"""Finds numbers of identity cards (GB 11643): area, date of birth, sequence, and since 1999 a check character."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from data.prepare.privacy.context import NUMBER_LINK, is_measured, is_other_number
from data.prepare.privacy.kinds import Span

_WEIGHTS: Final = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECKS: Final = "10X98765432"
_AREA: Final = "(?:1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[1-3])[0-9]{4}"
_DAY: Final = "(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])"
_GAP: Final = "[ -]?"
_NEW: Final = re.compile(rf"{_AREA}(?:19|20)[0-9]{{2}}{_DAY}[0-9]{{3}}[0-9Xx]")
_OLD: Final = re.compile(rf"{_AREA}[0-9]{{2}}{_DAY}[0-9]{{3}}")
_LONG: Final = re.compile(rf"(?<![0-9A-Za-z.])[1-9](?:{_GAP}[0-9]){{16}}{_GAP}[0-9Xx](?![0-9A-Za-z])")
_SHORT: Final = re.compile(r"(?<![0-9A-Za-z.])[1-9][0-9]{5}([ -]?)[0-9]{6}\1[0-9]{3}(?![0-9A-Za-z])")
_LABELED: Final = re.compile(
    rf"(?:身[ ]?份[ ]?证|证件)(?:件)?(?:号码|编号|号)?{NUMBER_LINK}"
    rf"([1-9](?:{_GAP}[0-9]){{16}}{_GAP}[0-9Xx]|[1-9](?:{_GAP}[0-9]){{14}})(?![0-9A-Za-z])"
)
_SEPARATORS: Final = str.maketrans("", "", " -")


def find_identity_cards(text: str) -> Iterator[Span]:
    """Yields numbers of 18 and 15 characters, also with blanks or dashes between groups.

    A number without a label must have a known province and a date. A wrong check character is accepted as a typing
    error, unless the label before the number shows that it is another kind of number, such as an order number.
    """
    for found in _LABELED.finditer(text):
        yield Span(*found.span(1), "identity_card")
    for found in _LONG.finditer(text):
        number = found[0].translate(_SEPARATORS)
        if _NEW.fullmatch(number) and (is_checked(number) or not is_other_number(text, found.start())):
            yield Span(*found.span(), "identity_card")
    for found in _SHORT.finditer(text):
        number = found[0].translate(_SEPARATORS)
        other = is_other_number(text, found.start()) or is_measured(text, found.end())
        if _OLD.fullmatch(number) and not other:
            yield Span(*found.span(), "identity_card")


def is_checked(number: str) -> bool:
    """Returns whether the check character of an 18-character number is correct."""
    total = sum(int(digit) * weight for digit, weight in zip(number, _WEIGHTS, strict=False))
    return _CHECKS[total % 11] == number[17].upper()
