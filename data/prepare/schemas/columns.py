"""Renames columns of conversations, questions, and texts from the names in data sets to those that converters read."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from data.choices.columns import CONTEXTS, normalized

_NAMES: Final = {
    "question": ("user", "human", "user_input", "patient"),
    "answer": ("assistant", "bot", "doctor"),
    "system": ("system_prompt", "system_message", "sys_prompt", "meta_instruction"),
    "context": CONTEXTS,
}
_KNOWN: Final = {other: name for name, others in _NAMES.items() for other in others if other != name}
_READ: Final = frozenset(
    [
        "instruct",
        "response",
        "completion",
        "target",
        "messages",
        "conversations",
        "conversation",
        "data",
        "dialog",
        "utterances",
        "dialogue_turns",
        "self_report",
        "margin",
        "chosen",
        "rejected",
        "label",
    ]
).union(_NAMES)


def renamed(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the record with its columns under the names that are read: `Question` and `user` become `question`.

    A column keeps its name if the record already has a column of the new name.
    """
    names = _new_names(tuple(record))
    return {names.get(name, name): value for name, value in record.items()} if names else record


@lru_cache(maxsize=256)
def _new_names(columns: tuple[Any, ...]) -> dict[Any, str]:
    taken = set(columns)
    found: dict[Any, str] = {}
    for column in columns:
        plain = normalized(column)
        name = _KNOWN.get(plain, plain if plain in _READ else None)
        if name is not None and name not in taken:
            found[column] = name
            taken.add(name)
    return found
