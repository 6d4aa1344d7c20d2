"""Cleaning of one text: Unicode, what is left of mark-up, and what identifies a person. Pure functions."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable
from typing import Final

# Control and zero-width characters, byte order marks, what stands for undecodable bytes, and private use: glyphs of a
# font that nobody has. Not the zero-width joiners, which some scripts need.
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
_WIDE_BY: Final = 0xFEE0  # from a full-width form to its ASCII character
_ODD: Final = re.compile(f"[{_UNSEEN}{_BLANK}{_LINE_END}{_WIDE_FORM}]")
_BLANKS: Final = re.compile(r"  +")
_EMPTY_LINES: Final = re.compile(r"\n{3,}")

_TAG: Final = re.compile(
    r"</?(?:a|b|blockquote|body|br|center|dd|div|dl|dt|em|font|h[1-6]|head|hr|html|i|img|li|ol|p|pre|span|strong|"
    r"sub|sup|table|tbody|td|th|thead|title|tr|u|ul)(?:\s[^<>]{0,2000})?/?>",
    re.IGNORECASE,
)
_BREAKING: Final = re.compile(r"<(?:br|/p|/div|/li|/tr|/h[1-6])\b[^<>]{0,200}>", re.IGNORECASE)
_HIDDEN: Final = re.compile(r"<!--.*?-->|<(script|style)\b[^>]*>.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_ENTITY: Final = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,10});")

_PART: Final = re.compile(r"(?m)^<目录>.*\n?")
_EMPHASIS: Final = re.compile(r"\\[xrnbt]")
_SECTION: Final = "<篇名>"
_LABEL: Final = re.compile(r"(?m)^内容：")
_SENTENCE_ENDS: Final = "。！？；：」』”）)】!?;:"
_WRAPPED_FROM: Final = 30  # a printed line of a classic has about 40 characters

_CODE: Final = r"(?<![0-9A-Za-z])"
_PRIVATE: Final = (
    ("【身份证】", re.compile(_CODE + r"[1-9][0-9]{5}(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[0-9]{3}[0-9Xx](?![0-9A-Za-z])")),
    ("【电话】", re.compile(r"(?<![0-9A-Za-z.])(?:(?:\+|00)?86[- ]?)?1[3-9][0-9][- ]?[0-9]{4}[- ]?[0-9]{4}(?![0-9])")),
    ("【电话】", re.compile(r"(?<![0-9.])(?:\(0[0-9]{2,3}\)|（0[0-9]{2,3}）|0[0-9]{2,3}[- ])[ ]?[1-9][0-9]{6,7}(?![0-9])")),
    ("【电话】", re.compile(r"(?<![0-9.-])[48]00[- ]?[0-9]{3}[- ]?[0-9]{4}(?![0-9])")),
)  # fmt: skip
_EMAIL: Final = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,4}\.[A-Za-z]{2,24}"
)
_WECHAT: Final = re.compile(
    r"((?:微信|薇信|威信|加微|wechat|weixin|(?<![A-Za-z])(?:vx|wx))(?:公众)?(?:号码|号|id)?(?:是|为)?[\s:：]*)"
    r"(?=[-_A-Za-z0-9]{0,19}[0-9_-])([A-Za-z][-_A-Za-z0-9]{5,19})(?![-_A-Za-z0-9])",
    re.IGNORECASE,
)  # a word without digit, dash or underscore behind such a word is more often English than a number
_ALPHANUMERIC: Final = re.compile(r"[0-9A-Za-z]")
_DIGITS: Final = re.compile(r"[0-9]{3}")
_NAME: Final = re.compile(r"[A-Za-z][-_A-Za-z0-9]{5}")


def normalise(text: str) -> str:
    """Unicode NFC; full-width letters and digits as ASCII, full-width punctuation as it is, which Chinese has; no
    characters that cannot be seen; one kind of line end and blank, at most one empty line."""
    text = unicodedata.normalize("NFC", text)
    if _ODD.search(text):  # one look for all of them
        text = _WIDE.sub(lambda found: "".join(chr(ord(one) - _WIDE_BY) for one in found[0]), text)
        text = _LINE_ENDS.sub("\n", text)
        text = _ODD_BLANKS.sub(" ", _INVISIBLE.sub("", text))
        text = unicodedata.normalize("NFC", text)  # of a letter and a mark that something stood between
    text = text.replace("∶", "：")
    if "  " in text:
        text = _BLANKS.sub(" ", text)
    return _trimmed(text.replace(" \n", "\n"))


def _trimmed(text: str) -> str:
    """At most one empty line in a row, none at the ends."""
    if "\n\n\n" in text:  # ten times as fast as to let the pattern look for them
        text = _EMPTY_LINES.sub("\n\n", text)
    return text.strip()


def remove_markup(text: str) -> str:
    """HTML's tags and entities, and the marks of digitised classics.

    Of these, `<目录>` lines go (they repeat the part's name in every section), of `<篇名>` lines the mark; `\\x` around
    emphasised words and the label 内容： go; lines that were broken by the printed page's width are joined.
    """
    if "<" in text:
        text = _HIDDEN.sub("", text)
        text = _TAG.sub("", _BREAKING.sub("\n", text))
    if "&" in text:
        text = _ENTITY.sub(lambda found: html.unescape(found[0]), text)
    if _SECTION in text:
        text = _PART.sub("", text).replace(_SECTION, "")
        text = _EMPHASIS.sub("", _LABEL.sub("", text))
        text = _joined(text)
    return _trimmed(text)


def _joined(text: str) -> str:
    """Lines that were cut at the page's width, joined: a long line that ends no sentence goes on in the next."""
    joined = ""
    goes_on = False
    for line in text.split("\n"):
        joined += line if goes_on or not joined else "\n" + line
        line = line.rstrip()
        goes_on = len(line) >= _WRAPPED_FROM and line[-1] not in _SENTENCE_ENDS
    return joined


def mask(text: str) -> tuple[str, int]:
    """Telephone, identity card, e-mail and WeChat numbers replaced by what they are; and how many were.

    Identity cards are found by their form (GB 11643: area, date of birth, sequence, check character), telephones by
    the numbering plan of mainland China.
    """
    count = 0
    if not _ALPHANUMERIC.search(text):  # all below has some
        return text, count
    if "@" in text:
        text, count = _EMAIL.subn("【邮箱】", text)
    if _DIGITS.search(text):
        for name, pattern in _PRIVATE:
            text, found = pattern.subn(name, text)
            count += found
    if _NAME.search(text):
        text, found = _WECHAT.subn(r"\1【微信】", text)
        count += found
    return text, count


TEXT_STEPS: Final[dict[str, Callable[[str], tuple[str, int]]]] = {
    "unicode": lambda text: _counted(text, normalise(text)),
    "markup": lambda text: _counted(text, remove_markup(text)),
    "privacy": mask,
}
"""Steps that change texts: text → (text, changes)."""


def _counted(before: str, after: str) -> tuple[str, int]:
    return after, int(before != after)
