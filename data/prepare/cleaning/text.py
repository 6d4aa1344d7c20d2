"""Cleans one text: Unicode, and leftover markup. Pure functions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from typing import Final

from data.prepare.cleaning.markup import strip_html
from data.prepare.schemas.classics import is_section, strip_section

# Control and zero-width characters, byte order marks, replacements of undecodable bytes, and private-use characters,
# whose glyphs exist in special fonts only. Zero-width joiners are kept, because some scripts need them.
_UNSEEN: Final = (
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b\u2060\ufeff\ufffc-\uffff\ue000-\uf8ff\U000f0000-\U0010ffff"
)
_BLANK: Final = "\t\xa0\u2000-\u200a\u3000"
_LINE_END: Final = "\r\u2028\u2029"
_WIDE_FORM: Final = "\uff10-\uff19\uff21-\uff3a\uff41-\uff5a"
_INVISIBLE: Final = re.compile(f"[{_UNSEEN}]")
_LINE_ENDS: Final = re.compile(rf"\r+\n|[{_LINE_END}]")
_ODD_BLANKS: Final = re.compile(f"[{_BLANK}]+")
_WIDE: Final = re.compile(f"[{_WIDE_FORM}]+")
_WIDE_BY: Final = 0xFEE0  # offset from a full-width form to its ASCII character
_ODD: Final = re.compile(f"[{_UNSEEN}{_BLANK}{_LINE_END}{_WIDE_FORM}]")
_BLANKS: Final = re.compile(r"  +")
_ESCAPED: Final = 3  # maximum number of passes over escaped HTML: `&amp;lt;sup&amp;gt;` is `<sup>`
_EMPTY_LINES: Final = re.compile(r"\n{3,}")


def normalize(text: str) -> str:
    """Normalizes characters, line ends, and blanks.

    Applies Unicode NFC; converts full-width letters and digits to ASCII, but keeps full-width punctuation, which
    Chinese uses; removes invisible characters; leaves one kind of line end and blank, and at most one empty line in a
    row.
    """
    return _trimmed(_plain(text).replace(" \n", "\n"))


def _plain(text: str) -> str:
    """Applies the part of `normalize` that does not depend on a character's position."""
    text = unicodedata.normalize("NFC", text)
    if _ODD.search(text):  # one search for all of them
        text = _WIDE.sub(lambda found: "".join(chr(ord(one) - _WIDE_BY) for one in found[0]), text)
        text = _LINE_ENDS.sub("\n", text)
        text = _ODD_BLANKS.sub(" ", _INVISIBLE.sub("", text))
        text = unicodedata.normalize("NFC", text)  # composes a letter and a mark that a removed character had separated
    text = text.replace("∶", "：")
    if "  " in text:
        text = _BLANKS.sub(" ", text)
    return text


def _trimmed(text: str) -> str:
    """Reduces consecutive empty lines to one, and removes whitespace at both ends."""
    if "\n\n\n" in text:  # ten times as fast as a search with the pattern
        text = _EMPTY_LINES.sub("\n\n", text)
    return text.strip()


def remove_markup(text: str, labels: Collection[str] = ()) -> str:
    """Returns the text without HTML, even if escaped, and without digitized classics' marks and section `labels`."""
    for _ in range(_ESCAPED):
        if "<" not in text and "&" not in text:
            break
        before, text = text, strip_html(text, _plain)
        if "&" not in before:
            break
    if is_section(text):
        text = strip_section(text, labels)
    return _trimmed(text)
