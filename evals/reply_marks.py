"""A reply without its typography, and with the options' texts marked by their letters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

OPTION: Final = "\x01"
"""Stands before a letter that is written in place of the option's text."""

_THOUGHT: Final = re.compile(r"<think>.*?</think>|^.*</think>", re.DOTALL)
_MARKUP: Final = re.compile(
    r"\*\*|__|`+|~~|<\|[^|>]*\|>|</?(?:b|strong|answer|u|i|em)>|^[ \t]*(?:#+|>|[-*•+])[ \t]+", re.MULTILINE
)
_BOXED: Final = re.compile(r"\\(?:boxed|text|textbf|mathrm|mathbf|fbox|operatorname)\s*\{([^{}]*)\}")
_MATH: Final = re.compile(r"\$+|\\[()\[\],;!]")
_SMALL: Final = re.compile(
    r"(?:(?<=答案是)|(?<=答案为)|(?<=答案：)|(?<=答案:)|(?<=选)|(?<=answer is )|(?<=answer: )|(?<=option )|(?<=boxed\{)|^)"
    r"\s*[(（]?([a-j])[)）]?(?=\s*(?:$|[。.，,;；）)}\n]))",
    re.IGNORECASE,
)


def plain(reply: str) -> str:
    """The reply with full-width letters as ASCII, without thoughts, Markdown and TeX; a small letter that is an answer is
    a capital."""
    text = _THOUGHT.sub("", reply)
    text = "".join(unicodedata.normalize("NFKC", one) if _is_form(one) else one for one in text)
    text = _SMALL.sub(lambda found: found[0].upper() if len(found[1]) == 1 else found[0], text)
    for _ in range(3):  # \boxed{\text{B}}
        text = _BOXED.sub(r" \1 ", text)
    return _MARKUP.sub("", _MATH.sub(" ", text)).strip()


def _is_form(one: str) -> bool:
    """Whether a character is another form of a letter or digit: full-width, circled, parenthesized, mathematical."""
    return unicodedata.decomposition(one).startswith(("<wide>", "<circle>", "<font>"))


def with_options_marked(text: str, letters: str, options: Sequence[str]) -> str:
    """The text with every option's text replaced by `OPTION` and its letter; a letter before its own option's text goes.

    The longest options come first, so that one inside another is not seen. Options of one character, and equal ones, are
    left: they stand in too many words.
    """
    for option, letter in sorted(zip(options, letters, strict=False), key=lambda pair: -len(pair[0])):
        if len(option) > 1 and options.count(option) == 1:
            before = r"(?<![0-9A-Za-z.])" if option[0].isascii() and option[0].isalnum() else ""
            after = r"(?![0-9A-Za-z]|\.[0-9])" if option[-1].isascii() and option[-1].isalnum() else ""
            text = re.sub(before + re.escape(option) + after, f"{OPTION}{letter.lower()}", text)
    text = re.sub(f"{OPTION}([a-j])", lambda found: OPTION + found[1].upper(), text)
    return re.sub(rf"(?<![A-Za-z0-9])([A-J])(?:选?项)?[\s.、．:：,，)）\]】(（“\"]*{OPTION}\1", rf"{OPTION}\1", text)
