"""Converts records of evaluation files to items: a question with its options, and all texts of the record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from data.choices.columns import ANSWERS, KEYS, normalized
from data.choices.reader import read_choice
from data.prepare.options import Options
from data.prepare.schemas.convert import row_of
from data.tables import DataError


@dataclass(frozen=True)
class Item:
    """An evaluation item.

    Attributes:
        question: the question; empty if the record has none, or several, as a dialogue does.
        options: texts of the question's options.
        texts: all strings in the record, at any depth.
    """

    question: str
    options: tuple[str, ...]
    texts: tuple[str, ...]


def item_of(record: Any, options: Options) -> Item:
    """Returns the item in a record of any layout; the answer key is not needed and may have any form."""
    texts = tuple(_strings(record))
    if isinstance(record, Mapping):
        keyless = {name: value for name, value in record.items() if normalized(name) not in (*KEYS, *ANSWERS)}
        try:
            if choice := read_choice(keyless):
                return Item(choice.question, choice.options, texts)
        except DataError:  # options in an unknown layout: only the texts are searched for
            return Item("", (), texts)
    return Item(_question(record, options), (), texts)


def _question(record: Any, options: Options) -> str:
    """Returns a record's question, or its text if it has only one; else an empty string."""
    for kind in ("prompts", "text"):
        try:
            row = row_of(record, replace(options, kind=kind, columns=(), min_chars=None))
        except DataError:
            continue
        asked = [turn["content"] for turn in row.get("prompt", ()) if turn["role"] == "user"] or [row.get("text", "")]
        return asked[0] if len(asked) == 1 else ""
    return ""


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(one)
