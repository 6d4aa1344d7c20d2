"""Finds personal data in a text and replaces it with placeholders."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Final

from data.prepare.privacy.accounts import (
    find_emails,
    find_insurance_numbers,
    find_qqs,
    find_record_numbers,
    find_wechats,
)
from data.prepare.privacy.addresses import find_addresses
from data.prepare.privacy.identity_cards import find_identity_cards
from data.prepare.privacy.kinds import KINDS, TOKENS, Span
from data.prepare.privacy.names import find_names
from data.prepare.privacy.phones import find_phones

_FINDERS: Final[dict[str, Callable[[str], Iterator[Span]]]] = {
    "email": find_emails,
    "identity_card": find_identity_cards,
    "insurance_number": find_insurance_numbers,
    "record_number": find_record_numbers,
    "qq": find_qqs,
    "phone": find_phones,
    "wechat": find_wechats,
    "name": find_names,
    "address": find_addresses,
}
_NUMBERS: Final = frozenset(["identity_card", "insurance_number", "record_number", "qq", "phone"])
_DIGITS: Final = re.compile(r"[0-9](?:[^0-9\n]{0,3}[0-9]){2}")
_WORD: Final = re.compile(r"[A-Za-z][-_A-Za-z0-9]{5}")


_WIDE: Final[dict[int, int]] = {
    **{code: code - 0xFEE0 for first, last in ("０９", "ＡＺ", "ａｚ") for code in range(ord(first), ord(last) + 1)},
    ord("＠"): ord("@"),
    ord("＿"): ord("_"),
}
_HAS_WIDE: Final = re.compile("[０-９Ａ-Ｚａ-ｚ＠]")


def find_personal(text: str) -> list[Span]:
    """Returns all personal data of a text, in order, without overlaps."""
    if _HAS_WIDE.search(text):
        text = text.translate(_WIDE)
    skipped = set() if _DIGITS.search(text) else set(_NUMBERS)
    if not _WORD.search(text):
        skipped.add("wechat")
    spans: list[Span] = []
    taken = bytearray()
    for kind in KINDS:
        if kind in skipped:
            continue
        for span in _FINDERS[kind](text):
            taken = taken or bytearray(len(text))  # characters of earlier spans
            if not any(taken[span.start : span.end]):
                taken[span.start : span.end] = b"\1" * (span.end - span.start)
                spans.append(span)
    return sorted(spans)


def mask(text: str, kinds: Collection[str] = KINDS) -> tuple[str, Counter[str]]:
    """Returns the text with personal data of these kinds replaced by placeholders, and the count of each kind.

    Personal data of any other kind is kept, even if a part of it has the form of one of these kinds.
    """
    spans = [span for span in find_personal(text) if span.kind in kinds]
    if not spans:
        return text, Counter()
    parts, place = [], 0
    for span in spans:
        parts += [text[place : span.start], TOKENS[span.kind]]
        place = span.end
    return "".join([*parts, text[place:]]), Counter(span.kind for span in spans)
