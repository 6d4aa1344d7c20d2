"""Probes of a chat template: renders chats of known content to find turn ends, control tokens, and use of the clock."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from configs.errors import ConfigError
from data.chat.render import render, tokenize
from data.tables import DataError

SYSTEM = {"role": "system", "content": "Qxzsystem"}
USER = {"role": "user", "content": "Qxzquestion"}
ASSISTANT = {"role": "assistant", "content": "Qxzresponse"}
NEXT = {"role": "user", "content": "Qxznext"}
TOOL = {"role": "tool", "content": "Qxznext"}

_DATES = datetime(2001, 2, 3), datetime(2012, 11, 10)


def name_of(tokenizer: Any) -> str:
    """Returns the name of the tokenizer for messages: the folder that it was loaded from, if any."""
    return tokenizer.name_or_path or "tokenizer"


def template_of(tokenizer: Any) -> str:
    """Returns the chat template: the default one, if there are several.

    Raises:
        ConfigError: there is no chat template, or there are several and none is the default.
    """
    name = name_of(tokenizer)
    if not tokenizer.chat_template:
        raise ConfigError(
            f"{name}: the tokenizer has no chat template; set chat.template to chimed, chatml, llama3 or a .jinja file where a "
            "recipe names the model, or put a chat_template.jinja into the folder"
        )
    try:
        template: str = tokenizer.get_chat_template()
    except ValueError as error:  # several templates, none of them the default
        raise ConfigError(f"{name}: {error}; set chat.template") from error
    return template


def knows_tools(tokenizer: Any) -> bool:
    """Returns whether the template handles turns of the role `tool`."""
    return re.search(r"""["']tool["']""", tokenizer.get_chat_template()) is not None


def example(tokenizer: Any) -> str:
    """Renders an example chat, with a system turn if the template accepts one.

    Raises:
        ConfigError: the template cannot render user and assistant turns.
    """
    for chat in ([SYSTEM, USER, ASSISTANT, NEXT], [USER, ASSISTANT, NEXT]):
        try:
            return render(tokenizer, chat, add_generation_prompt=True)
        except DataError as error:
            refusal = error
    raise ConfigError(f"{name_of(tokenizer)}: a chat of user and assistant turns cannot be rendered: {refusal}")


def require_no_clock(tokenizer: Any) -> None:
    """Rejects a template whose rendering depends on the date.

    Raises:
        ConfigError: the rendering depends on the date; the message names the variable that fixes it, if there is one.
    """
    for chat in ([USER], [SYSTEM, USER]):
        try:
            first, second = (
                render(tokenizer, chat, strftime_now=lambda form, date=date: date.strftime(form)) for date in _DATES
            )
        except DataError:  # the template rejects system turns
            continue
        if first != second:
            variable = re.search(r"set (\w+) = strftime_now", tokenizer.get_chat_template())
            name = variable[1] if variable else "NAME"
            raise ConfigError(
                f"{name_of(tokenizer)}: the chat template writes today's date, so the tokens of a chat change "
                f'daily; set a fixed date, for example with --chat.arguments.{name}="26 Jul 2024"'
            )


def turn_ends(tokenizer: Any) -> tuple[int, ...]:
    """Returns the ids of the tokens that end an assistant's turn.

    The first is the one that ends the last turn of a chat. If a template leaves that turn open, as GLM-4's does, it is
    the token that begins the next user's turn.

    Raises:
        ConfigError: no turn ends with a special or added token.
    """
    tails = [_tail(tokenizer, [USER, ASSISTANT]), _tail(tokenizer, [USER, ASSISTANT, NEXT])]
    if knows_tools(tokenizer):
        with suppress(DataError):  # the template may require a tool call first
            tails.append(_tail(tokenizer, [USER, ASSISTANT, TOOL]))
    ends = [end for tail in tails if (end := _first_added(tokenizer, tail)) is not None]
    if not ends:
        raise ConfigError(
            f"{name_of(tokenizer)}: the chat template ends an assistant's turn with {tails[0] or tails[1]!r}, which does "
            "not begin with a special or added token of the tokenizer; set chat.template to a format that fits it"
        )
    return tuple(dict.fromkeys(ends))


def control_marks(tokenizer: Any, ends: Sequence[int]) -> tuple[str, ...]:
    """Returns the strings that no content may contain, because they would be encoded as control tokens.

    These are all special tokens, the ends of turns, and the added tokens that the template writes outside of the
    assistant's turns. Added tokens that occur in responses only, such as `<think>`, are not included.
    """
    added = tokenizer.added_tokens_decoder
    found = {token.content for token in added.values() if token.special} | set(tokenizer.all_special_tokens)
    found |= {added[end].content for end in ends}
    text = example(tokenizer)
    tokens = tokenize(tokenizer, text)
    response = tokens.between(_response_start(tokenizer, text), text.index(ASSISTANT["content"]))
    found |= {added[id].content for at, id in enumerate(tokens.ids) if id in added and at not in response}
    return tuple(sorted(mark for mark in found if mark.strip()))


def _response_start(tokenizer: Any, text: str) -> int:
    """Returns the position in `text`, a rendered example, at which the first response's generation prompt ends."""
    for chat in ([SYSTEM, USER], [USER]):
        try:
            prompt = render(tokenizer, chat, add_generation_prompt=True)
        except DataError:
            continue
        if text.startswith(prompt):
            return len(prompt)
    return text.index(ASSISTANT["content"])


def _tail(tokenizer: Any, chat: Sequence[dict[str, str]]) -> str:
    """Returns what the template writes after the assistant's content, up to the next turn's content."""
    text = render(tokenizer, chat)
    _, response, tail = text.partition(ASSISTANT["content"])
    if not response:
        raise ConfigError(f"{name_of(tokenizer)}: the chat template does not render the assistant's content")
    return tail.partition(NEXT["content"])[0]


def _first_added(tokenizer: Any, text: str) -> int | None:
    """Returns the id of the special or added token that `text` begins with, ignoring whitespace, or None."""
    tokens = tokenize(tokenizer, text)
    for id, start, stop in zip(tokens.ids, tokens.starts, [*tokens.starts, len(text)][1:], strict=True):
        if id in tokenizer.added_tokens_decoder:
            return int(id)
        if text[start:stop].strip():
            return None
    return None
