"""Joins adjacent records of one turn or one exchange that have the same dialogue id to one record per dialogue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from data.prepare.options import Options
from data.prepare.reading.readers import Found
from data.prepare.schemas.chats import chat_of
from data.prepare.schemas.turns import ROLE_KEYS, Messages, merged, turns_of
from data.tables import DataError


def dialogues(found: Iterator[Found], options: Options) -> Iterator[Found]:
    """Yields one record, at its first line, for each run of records with the same value of `options.dialogue_id`.

    A record without a value in that column is rejected. A whole dialogue is rejected if one of its records holds no
    turns, or if its value occurred in earlier records that were not adjacent.
    """
    column = options.dialogue_id
    seen = set[str]()
    key, first, turns, bad = "", 0, list[dict[str, str]](), ""
    for one in found:
        given = one.record.get(column) if isinstance(one.record, Mapping) else None
        name = "" if given is None else str(given).strip()
        if key and name != key:
            yield _dialogue(first, turns, bad)
            key, turns, bad = "", [], ""
        if not name:
            yield Found(one.line, None, one.bad or f"has no {column}, which --dialogue-id names")
            continue
        if not key:
            key, first = name, one.line
            if key in seen:
                bad = f"{column} is that of earlier records, which are not adjacent; sort the file by {column}"
            seen.add(key)
        try:
            turns += _turns(one.record, options)
        except DataError as error:
            bad = bad or f"line {one.line}: {error}"
    if key:
        yield _dialogue(first, turns, bad)


def _dialogue(first: int, turns: Messages, bad: str) -> Found:
    return Found(first, None, bad) if bad else Found(first, {"messages": merged(turns)})


def _turns(record: Mapping[str, Any], options: Options) -> Messages:
    """Returns the turns of a record: one with its speaker, or a question and its answer."""
    if any(name in record for name in ROLE_KEYS):
        return turns_of([record], "turn")
    chat = chat_of(record, options)
    if chat is None:
        raise DataError(
            f"columns {', '.join(map(str, record))} are not a turn; give a role and a content, or a question and an answer"
        )
    messages: Messages = chat["messages"]
    return messages
