"""Finds the assistant's turns in a rendered chat, by rendering growing prefixes of the chat, and verifies them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from data.chat.render import Messages, generation_blocks, render
from data.tables import DataError


class UnstableError(DataError):
    """The chat template renders a whole chat differently from the chat up to one of its responses."""


class Span(NamedTuple):
    """The characters of an assistant's turn in a rendered chat, starting after the generation prompt."""

    start: int
    stop: int
    """End of the token that ends the turn, or of the text if the template leaves the last turn open."""
    closed: bool


class SpanFinder:
    """Finder of the assistant's turns in chats that a tokenizer's chat template renders.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.
        ends: the strings that end an assistant's turn.
    """

    def __init__(self, tokenizer: Any, ends: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        pattern = "|".join(map(re.escape, ends))
        self._end = re.compile(pattern)
        self._next_end = re.compile(rf"\s*(?:{pattern})")
        self._has_blocks = re.search(r"\{%-?\s*generation\b", tokenizer.get_chat_template()) is not None

    def prompt(self, messages: Messages) -> str:
        """Renders a chat with the generation prompt.

        Raises:
            DataError: the template drops the system turn, or rejects the chat.
        """
        text = render(self._tokenizer, messages, add_generation_prompt=True)
        if messages[0]["role"] == "system" and messages[0]["content"].strip() not in text:
            raise DataError("chat: the chat template leaves out the system turn; drop it or use another template")
        return text

    def last(self, messages: Messages) -> tuple[str, Span]:
        """Renders a chat that ends with the assistant's turn, and finds that turn.

        Raises:
            DataError: the rendering does not begin with the rendered prompt of that turn.
        """
        text = render(self._tokenizer, messages)
        prompt = self.prompt(messages[:-1])
        start = len(prompt) if text.startswith(prompt) else None
        if self._has_blocks:
            start = max(self._block_start(messages), start or 0)
        if start is None:
            raise DataError(
                f"chat: the chat template does not continue the prompt that ends with {prompt[-40:]!r} in the finished turn "
                f"{len(messages) - 1}, as when it moves a system turn or drops reasoning; use another template"
            )
        end = self._end.search(text, start)
        return text, Span(start, end.end() if end else len(text), end is not None)

    def whole(self, messages: Messages) -> tuple[str, list[Span]]:
        """Renders a chat, and finds all of the assistant's turns.

        Raises:
            UnstableError: the template renders a turn differently when others follow.
            DataError: see `last`.
        """
        whole, spans = render(self._tokenizer, messages), []
        for turn, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            text, span = self.last(messages[: turn + 1])
            if not whole.startswith(text[: span.stop]):
                raise UnstableError(
                    f"chat: the chat template renders turn {turn} differently when others follow, so one mask over the "
                    "whole chat would be wrong; encode a sample for each response"
                )
            if not span.closed and turn + 1 < len(messages):
                after = self._next_end.match(whole, span.stop)
                if after is None:
                    raise UnstableError(f"chat: the chat template ends turn {turn} with no token when others follow")
                span = Span(span.start, after.end(), closed=True)
            spans.append(span)
        return whole, spans

    def _block_start(self, messages: Messages) -> int:
        """Returns the position, in characters, at which the last `{% generation %}` block begins.

        Raises:
            DataError: the number of blocks is not the number of responses.
        """
        blocks = generation_blocks(self._tokenizer, messages)
        responses = sum(message["role"] == "assistant" for message in messages)
        if len(blocks) != responses:
            raise DataError(f"chat: the chat template marks {len(blocks)} generations for {responses} responses")
        return blocks[-1][0]
