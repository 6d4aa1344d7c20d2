"""Finds the options that a key names: by letter, several letters, the options' own texts, or a number."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any, Final

from data.choices.options import Options, label_of
from data.choices.question import COUNTED, LETTERS, NO_ANSWER, UnusableQuestion

_OPENING: Final = re.compile(r"^(?:正确|参考|标准)?(?:答案|选项)?(?:应?为|应?是|选)?[:：]?\s*")
_LETTERS: Final = re.compile(rf"[{LETTERS}](?:[\s,;|/+&、，；和及与]*[{LETTERS}])*")
_LETTERED: Final = re.compile(rf"[(\[]?([{LETTERS}])\s*(?:[)\].:、,，]\s*|\s)(.+)", re.DOTALL)


def right_options(value: Any, options: Options, first: int | None, column: str) -> tuple[int, ...]:
    """Returns the indices of the options that a key names, in ascending order.

    Args:
        value: the key, or a list of keys.
        options: the question's options.
        first: the number of the first option, 0 or 1, if keys are numbers; None if unknown.
        column: the key's column, for messages.

    Raises:
        UnusableQuestion: the key names none of the options, or is ambiguous.
    """
    values = value if isinstance(value, list | tuple) else [value]
    found = {index for one in values for index in _named(one, options, first, column)}
    return tuple(sorted(found))


def _named(value: Any, options: Options, first: int | None, column: str) -> set[int]:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _none(column, value, options)
    if not isinstance(value, str):
        return {_numbered(value, options, first, column)}
    text = value.strip()
    label, labels = label_of(text), [label for label, _ in options]
    by_text = [index for index, option in enumerate(_texts(options)) if option == text]
    if label in labels:
        if label.isdigit() and by_text not in ([], [labels.index(label)]):
            raise UnusableQuestion(
                NO_ANSWER, f"{column} holds {text!r}, the number of one option and the text of another"
            )
        return {labels.index(label)}
    by_letters = _lettered(text, options, column)
    if first is not None and text.isascii() and text.isdigit():
        return {_numbered(int(text), options, first, column)}
    if len(by_text) == 1 and by_letters not in (set(), set(by_text)):
        raise UnusableQuestion(
            NO_ANSWER, f"{column} holds {text!r}, which is both an option's text and letters of options"
        )
    if len(by_text) == 1:
        return set(by_text)
    if len(by_text) > 1:
        raise UnusableQuestion(
            NO_ANSWER, f"{column} holds {text!r}, which is the text of {len(by_text)} options; give a letter"
        )
    if by_letters:
        return by_letters
    if text.isascii() and text.isdigit():
        return {_numbered(int(text), options, first, column)}
    raise _none(column, value, options)


def _lettered(text: str, options: Options, column: str) -> set[int]:
    """Returns the indices of the options that a text names by letter, with or without their texts; empty if none.

    Raises:
        UnusableQuestion: a letter occurs twice or is not the label of an option.
    """
    plain = _OPENING.sub("", unicodedata.normalize("NFKC", text)).strip()
    bare = plain.strip("()[].。、 ").upper()
    labels = [label for label, _ in options]
    if _LETTERS.fullmatch(bare):
        letters = re.findall(r"[A-Z]", bare)
        if len(set(letters)) < len(letters) or not set(letters) <= set(labels):
            if text in _texts(options):
                return set()
            raise _none(column, text, options)
        return {labels.index(letter) for letter in letters}
    parts = [part for part in plain.split("\n") if part.strip()]
    found: set[int] = set()
    for part in parts:
        match = _LETTERED.fullmatch(part.strip())
        if match is None or match[1] not in labels:
            return set()
        index = labels.index(match[1])
        wanted = unicodedata.normalize("NFKC", _texts(options)[index])
        if match[2].strip().rstrip("。.") != wanted.rstrip("。."):
            return set()
        found.add(index)
    return found


def _numbered(value: int | float, options: Options, first: int | None, column: str) -> int:
    if not math.isfinite(value):
        raise _none(column, value, options)
    labels = [label for label, _ in options]
    if value == int(value) and str(int(value)) in labels:
        return labels.index(str(int(value)))
    if first is not None:
        index = int(value) - first
        if value != int(value) or not 0 <= index < len(options):
            raise _none(column, value, options)
        return index
    texts = [index for index, text in enumerate(_texts(options)) if text == str(value)]
    if len(texts) == 1 and not 0 <= value <= len(options):
        return texts[0]
    raise UnusableQuestion(
        COUNTED,
        f"{column} holds the number {value:g}, and options may be counted from 0 or from 1; write letters, or run "
        "data.prepare with --first-option",
    )


def _texts(options: Options) -> list[str]:
    return [text for _, text in options]


def _none(column: str, value: Any, options: Options) -> UnusableQuestion:
    labels = ", ".join(label for label, _ in options)
    return UnusableQuestion(NO_ANSWER, f"{column}: the answer is {value!r}; it must be one of the options {labels}")
