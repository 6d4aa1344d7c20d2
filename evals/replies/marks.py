"""Normalizes a response's typography, and replaces the options' texts by marked letters."""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Final

OPTION: Final = "\x01"
"""Prefix of a letter that replaces an option's text."""

_THOUGHT: Final = re.compile(r"<think>.*?</think>|^.*</think>", re.DOTALL)
_MARKUP: Final = re.compile(
    r"\*\*|__|`+|~~|<\|[^|>]*\|>|</?(?:b|strong|answer|u|i|em)>|^[ \t]*(?:#+|>|[-*•+])[ \t]+", re.MULTILINE
)
_BOXED: Final = re.compile(r"\\(?:boxed|text|textbf|mathrm|mathbf|fbox|operatorname)\s*\{([^{}]*)\}")
_MATH: Final = re.compile(r"\$+|\\[()\[\],;!]")
_SMALL: Final = re.compile(
    r"((?:^|答案|选项?|answer|option|choice|boxed\{)\s*(?:是|为|is)?\s*[:：]?\s*[(（]?)([a-j])(?=[)）]?\s*(?:$|[。.，,;；）)}\n]))",
    re.IGNORECASE,
)
_PLACES: Final = "一二三四五六七八九十"
_PLACE: Final = re.compile(
    r"(?:第|选项)([一二三四五六七八九十]|[1-9]|10)(?:个?选项|(?<=选第.)[项个]|(?<=选项.))(?![A-Za-z0-9])"
)
_ASIDE: Final = re.compile(
    r"[(（](?=[^()（）]*(?:有误|错|不|次之|其次|排除|之前|先前))(?![^()（）]*(?:更正|修正|纠正|应|改|正确|答案|选项?[A-J]))[^()（）]{3,}[)）]"
)
"""A parenthesized remark after the answer that denies an option or ranks it lower: `B（之前写的A有误）`."""
_ANSWER_KEYS: Final = re.compile(
    r"answer|答案|选项|选择|choice|option|prediction|结论|结果|result|label", re.IGNORECASE
)


def plain(reply: str) -> str:
    """Normalizes a response: converts full-width letters to ASCII, and removes reasoning, Markdown, and TeX.

    Lowercase letters that stand for an answer become uppercase.
    """
    text = _THOUGHT.sub("", reply).strip()
    text = normalized(_of_json(text))
    text = _SMALL.sub(lambda found: found[1] + found[2].upper(), text)
    for _ in range(3):  # \boxed{\text{B}}
        text = _BOXED.sub(r" \1 ", text)
    text = _PLACE.sub(lambda found: _letter_at(found[1]), _ASIDE.sub("", text))
    return _MARKUP.sub("", _MATH.sub(" ", text)).strip()


def _letter_at(place: str) -> str:
    return "ABCDEFGHIJ"[int(place) - 1 if place.isascii() else _PLACES.index(place)]


def normalized(text: str) -> str:
    """Returns a text with ASCII letters and digits, and with a hyphen for every range sign (`60～100`, `60-100`)."""
    text = "".join(unicodedata.normalize("NFKC", one) if _is_form(one) else one for one in text)
    return re.sub(r"(?<=[0-9%])\s*[~∼–—―]\s*(?=[0-9])", "-", text)


def _of_json(text: str) -> str:
    """Returns the answer in a response that is, or contains, one JSON object; otherwise the response itself."""
    begin, end = text.find("{"), text.rfind("}") + 1
    if begin < 0 or "\\" in text[:begin] or not end:
        return text
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(text[begin:end])
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if not isinstance(found, dict):
            return text
        values = [value for key, value in found.items() if _ANSWER_KEYS.search(str(key))]
        lists = [value if isinstance(value, list) else [value] for value in values]
        given = {"、".join(one for one in value if isinstance(one, str)) for value in lists}
        return "\n".join(f"答案：{one}" for one in sorted(given)) if values else text
    return text


def _is_form(one: str) -> bool:
    """Returns whether a character is a full-width, circled, or mathematical form of a letter or digit."""
    return unicodedata.decomposition(one).startswith(("<wide>", "<circle>", "<font>"))


def with_options_marked(text: str, letters: str, options: Sequence[str]) -> str:
    """Replaces every option's text by `OPTION` and its letter; drops a letter directly before its own option's text.

    The longest options are replaced first, so that an option within another one is not matched. A one-character option
    occurs in too many words, so it is replaced only after its letter or `答案是`, at the end of a clause. Identical
    options are not replaced.
    """
    for option, letter in sorted(zip(options, letters, strict=False), key=lambda pair: -len(pair[0])):
        if len(option) > 1 and options.count(option) == 1:
            flags = re.IGNORECASE if option.isascii() else re.NOFLAG
            before = r"(?<![0-9A-Za-z.\-])" if option[0].isascii() and option[0].isalnum() else ""
            after = r"(?![0-9A-Za-z]|\.[0-9])" if option[-1].isascii() and option[-1].isalnum() else ""
            text = re.sub(before + re.escape(option) + after, f"{OPTION}{letter.lower()}", text, flags=flags)
        elif len(option) == 1 and not option.isascii():
            text = re.sub(
                rf"({letter}\s*[、.：:，,（(]?\s*|(?:答案|正确)的?(?:选项)?(?:是|为|：|:)\s*){re.escape(option)}(?=[)）]?\s*(?:[。.，,；;\n]|$))",
                rf"\g<1>{OPTION}{letter.lower()}",
                text,
            )
    text = re.sub(f"{OPTION}([a-j])", lambda found: OPTION + found[1].upper(), text)
    return re.sub(rf"(?<![A-Za-z0-9])([A-J])(?:选?项)?[\s.、．:：,，)）\]】(（“\"]*{OPTION}\1", rf"{OPTION}\1", text)
