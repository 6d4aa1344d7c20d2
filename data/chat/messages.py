"""Chats as messages, and the checks that need no tokenizer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypedDict

from data.chat.templates import RESERVED
from data.tables import DataError


class Message(TypedDict):
    """One turn of a chat."""

    role: str
    content: str


def check_messages(messages: Sequence[Mapping[str, Any]], marks: Sequence[str] = RESERVED, tools: bool = False) -> None:
    """Checks the order of the turns and their contents.

    Args:
        messages: an optional system turn, then alternating user and assistant turns, user first.
        marks: strings that no content may contain, because the tokenizer would read them as control tokens. The
            default is ChiMed-GPT's, for callers without a tokenizer; `ChatFormat.check` uses the checkpoint's own.
        tools: whether tool turns may follow an assistant's turn.

    Raises:
        DataError: no turns, an unknown role, an empty turn, a reserved mark in a turn, or turns out of order.
    """
    if not messages:
        raise DataError("chat: no turns; begin with a user's turn")
    expected: tuple[str, ...] = ("user",)
    for index, message in enumerate(messages):
        where = f"chat: turn {index}"
        role, content = message["role"], message["content"]
        if role == "tool" and not tools:
            raise DataError(f"{where}: the chat format has no tool turns; drop the chat or use a template that has")
        if role not in ("system", "user", "assistant", "tool"):
            raise DataError(f"{where}: unknown role '{role}'; use system, user or assistant")
        if not isinstance(content, str) or not content.strip():
            raise DataError(f"{where} ({role}): the content is empty or not text; give it text or drop the chat")
        if (mark := find_mark(content, marks)) is not None:
            raise DataError(f"{where} ({role}): contains the reserved mark '{mark}'; remove it from the text")
        if role == "system":
            if index:
                raise DataError(f"{where}: a system turn may only come first; move it or drop it")
            continue
        if role not in expected:
            raise DataError(
                f"{where}: found the {role}'s turn where the {expected[0]}'s must be; turns alternate, user first"
            )
        expected = _after(role)
    if messages[-1]["role"] == "system":
        raise DataError("chat: only a system turn; add a user's turn")


def find_mark(text: str, marks: Sequence[str]) -> str | None:
    """Returns the first of `marks` that `text` contains, or None."""
    if not marks:
        return None
    found = _pattern(tuple(marks)).search(text)
    return found.group() if found else None


def _after(role: str) -> tuple[str, ...]:
    return {"user": ("assistant",), "assistant": ("user", "tool"), "tool": ("assistant", "tool")}[role]


@lru_cache(maxsize=64)
def _pattern(marks: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(mark) for mark in sorted(marks, key=len, reverse=True)))
