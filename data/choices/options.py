"""Reads the options of a question, with the labels that a key names, from the layouts that publishers use.

Supported layouts are an object keyed by letter; lists of texts, of `{"key", "value"}` objects, and of `[letter, text]`
pairs; an object of two lists, `text` and `label`; and text, either JSON or with a letter before each option.
"""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any, Final

from data.choices.columns import is_blank
from data.choices.question import LETTERS, NO_OPTION, UNCLEAR, UnusableQuestion

Options = list[tuple[str, str]]
"""Label and text of each option, in order; a label is a letter or a number."""

_PAIRS: Final = (("key", "value"), ("label", "text"), ("letter", "text"), ("id", "text"), ("aid", "atext"), ("key", "text"), ("label", "value"), ("option", "text"), ("option", "content"), ("label", "content"), ("key", "content"))  # fmt: skip
_COLUMNS: Final = (("label", "text"), ("labels", "texts"), ("key", "value"))
_TO_FULL_WIDTH: Final = 0xFEE0
_MARKED: Final = r"\s*[(（\[]?{letter}\s*[)）\].．、:：,，][ \t\u3000]*"
_LINE: Final = r"\n[ \t\u3000]*[(（\[]?{letter}[ \t\u3000]*(?:[)）\].．、:：,，]|(?=\s|$))[ \t\u3000]*"
_BETWEEN: Final = ";；,，|/、"
_INLINE: Final = r"(?<![A-Za-z0-9])[(（\[]?{letter}\s*[)）\].．、:：][ \t\u3000]*"


def read_options(value: Any, column: str) -> Options:
    """Returns the options that one column holds, without blank ones at the end.

    Raises:
        UnusableQuestion: the layout is unknown, an option between others is missing, or there are fewer than 2 or more
            than 10 options.
    """
    if isinstance(value, str):
        value = _parsed(value)
    if isinstance(value, str):
        options = _of_text(value, column)
    elif isinstance(value, Mapping):
        options = _of_mapping(value, column)
    elif isinstance(value, list | tuple):
        options = _of_list(value, column)
    else:
        raise UnusableQuestion(
            UNCLEAR, f"{column} holds {value!r}; options are an object by letter, a list, or lettered lines"
        )
    return checked(options, column)


def checked(options: Options, column: str) -> Options:
    """Checks options that are in the order of their labels, and returns them without blank ones at the end.

    If the texts of all options begin with their own labels and a mark (`B. text`), labels and marks are removed.

    Raises:
        UnusableQuestion: an option between others is missing, a label occurs twice, or there are fewer than 2 or more
            than 10 options.
    """
    while options and not options[-1][1]:
        options = options[:-1]
    if not 2 <= len(options) <= len(LETTERS):
        raise UnusableQuestion(NO_OPTION, f"{column}: {len(options)} options; a question has 2 to {len(LETTERS)}")
    labels = [label for label, _ in options]
    begin = 0 if labels[0] == "0" else 1
    wanted = (
        list(ascii_uppercase[: len(labels)]) if labels[0].isalpha() else [str(begin + i) for i in range(len(labels))]
    )
    missing = [label for label in wanted if label not in labels] + [label for label, text in options if not text]
    if missing or len(set(labels)) < len(labels):
        named = f"option {missing[0]} is missing" if missing else "a label occurs twice"
        raise UnusableQuestion(NO_OPTION, f"{column}: {named}; the options are labeled {', '.join(labels)}")
    return _without_marks(options)


def text_of(value: Any, column: str) -> str:
    """Returns an option's text; a number is converted to text.

    Raises:
        UnusableQuestion: the value is neither text nor a number.
    """
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if is_blank(value):
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise UnusableQuestion(UNCLEAR, f"{column}: an option holds {value!r}; it must be a text")


def label_of(value: Any) -> str:
    """Returns a label in the form used for comparison: a capital letter or a number; empty if it is neither."""
    text = unicodedata.normalize("NFKC", str(value)).strip().strip("().[]、:").upper()
    if len(text) == 1 and text in ascii_uppercase:
        return text
    return str(int(text)) if text.isascii() and text.isdigit() and len(text) <= 2 else ""


def _parsed(text: str) -> Any:
    """Parses JSON, or Python literals as pandas writes them to CSV; returns the text itself if it is neither."""
    stripped = text.strip()
    if stripped[:1] in ("{", "["):
        for parse in (json.loads, ast.literal_eval):
            try:
                return parse(stripped)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    return text


def _of_mapping(value: Mapping[Any, Any], column: str) -> Options:
    for label, text in _COLUMNS:
        labels, texts = value.get(label), value.get(text)
        if len(value) == 2 and isinstance(labels, list) and isinstance(texts, list) and len(labels) == len(texts):
            return _labeled(list(zip(labels, texts, strict=True)), column)
    return _labeled(list(value.items()), column)


def _labeled(pairs: Sequence[tuple[Any, Any]], column: str) -> Options:
    options = [(label_of(label), text_of(text, column)) for label, text in pairs]
    if any(not label for label, _ in options) or len({label.isdigit() for label, _ in options}) > 1:
        names = ", ".join(str(label) for label, _ in pairs)
        raise UnusableQuestion(
            UNCLEAR, f"{column}: the options are named {names}; they must be named A, B, ... or 1, 2, ..."
        )
    return sorted(options, key=lambda one: (len(one[0]), one[0]))


def _of_list(values: Sequence[Any], column: str) -> Options:
    if values and all(isinstance(one, Mapping) for one in values):
        names = next((pair for pair in _PAIRS if all(set(one) == set(pair) for one in values)), None)
        if names is None:
            found = ", ".join(map(str, values[0]))
            raise UnusableQuestion(UNCLEAR, f"{column}: options are objects with {found}; give each a key and a value")
        return _labeled([(one[names[0]], one[names[1]]) for one in values], column)
    if values and all(isinstance(one, list | tuple) and len(one) == 2 for one in values):
        return _labeled([(one[0], one[1]) for one in values], column)
    texts = [text_of(one, column) for one in values]
    if len(texts) > len(LETTERS):
        raise UnusableQuestion(NO_OPTION, f"{column}: {len(texts)} options; a question has 2 to {len(LETTERS)}")
    return list(zip(LETTERS, texts, strict=False))


def _without_marks(options: Options) -> Options:
    """Removes labels and marks if the texts of all options begin with their own labels and a mark (`B. text`)."""
    marks = [re.match(_MARKED.format(letter=label), text) for label, text in options]
    return (
        [(label, text[mark.end() :] if mark else text) for (label, text), mark in zip(options, marks, strict=True)]
        if all(marks)
        else options
    )


def _of_text(text: str, column: str) -> Options:
    """Reads options from a text with a letter before each: at line starts, else anywhere if followed by a mark."""
    for pattern in (_LINE, _INLINE):
        options = _split("\n" + text.strip(), pattern)
        if len(options) > 1:
            return options
    raise UnusableQuestion(
        UNCLEAR, f"{column} holds {text!r}; write one letter before each option, A, B, ..., a line each"
    )


def _split(text: str, pattern: str) -> Options:
    """Returns the parts after A, B, ...; empty if a letter is missing or repeated, since this makes them ambiguous."""
    marks = [
        (letter, match)
        for letter in ascii_uppercase
        for match in re.finditer(pattern.format(letter=f"[{letter}{chr(ord(letter) + _TO_FULL_WIDTH)}]"), text)
    ]
    letters = "".join(letter for letter, _ in marks)
    places = [match.start() for _, match in marks]
    if not letters or letters != ascii_uppercase[: len(letters)] or places != sorted(places):
        return []
    if text[: places[0]].strip():
        return []
    ends = [*places[1:], len(text)]
    parts = [text[match.end() : end].strip() for (_, match), end in zip(marks, ends, strict=True)]
    between = {part[-1:] for part in parts[:-1]}
    if len(between) == 1 and between <= set(_BETWEEN):  # as in `A:one;B:two`
        parts = [part.rstrip("".join(between)).rstrip() for part in parts]
    return [(letter, part) for (letter, _), part in zip(marks, parts, strict=True)]
