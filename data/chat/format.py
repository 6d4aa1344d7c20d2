"""The chat format of one tokenizer: token ids, which of them to train on, how a turn ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from configs.errors import ConfigError
from data.chat import probes
from data.chat.messages import check_messages
from data.chat.render import Messages, render, tokenize
from data.chat.spans import Span, SpanFinder, UnstableError
from data.tables import DataError

Encoded = tuple[list[int], list[int]]
"""Token ids and loss mask, both of length T; the mask is 1 on tokens to train on."""


class ChatFormat:
    """The chat format that a tokenizer's chat template defines. `chat_format` creates and caches it.

    Args:
        tokenizer: a fast Hugging Face tokenizer with a chat template.

    Raises:
        ConfigError: the tokenizer is slow, its template depends on the date, or the assistant's turns do not end with a
            special or added token.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not tokenizer.is_fast:
            raise ConfigError(
                f"{probes.name_of(tokenizer)}: the tokenizer is slow (no tokenizer.json); save it as a fast one first"
            )
        self._tokenizer = tokenizer
        self.examples = probes.example(tokenizer), render(tokenizer, [probes.USER, probes.ASSISTANT])
        """Example chats as text; formats that render them identically are equal."""
        probes.require_no_clock(tokenizer)
        self.ends = probes.turn_ends(tokenizer)
        """Ids of the tokens that end an assistant's turn; the first ends a chat."""
        self.marks = probes.control_marks(tokenizer, self.ends)
        """Strings that no content may contain."""
        self._tools = probes.knows_tools(tokenizer)
        added = tokenizer.added_tokens_decoder
        self._finder = SpanFinder(tokenizer, [added[end].content for end in self.ends])
        self._mark_ids = {id for id, token in added.items() if token.content in self.marks}
        self._normalizes = any(added[id].normalized for id in self._mark_ids)

    def check(self, messages: Messages) -> None:
        """Rejects a chat with turns out of order, an empty turn, or control tokens in its contents.

        Raises:
            DataError: see `check_messages`.
        """
        check_messages(messages, self.marks, self._tools)
        if not self._normalizes:
            return
        for index, message in enumerate(messages):
            if forged := self._mark_ids.intersection(tokenize(self._tokenizer, message["content"]).ids):
                mark = self._tokenizer.decode([min(forged)])
                raise DataError(f"chat: turn {index}: is encoded with the reserved mark '{mark}'; remove it")

    def prompt(self, messages: Messages) -> list[int]:
        """Returns the token ids of a chat that awaits a response, including the generation prompt.

        Raises:
            DataError: see `check`; or the last turn is the assistant's.
        """
        if messages and messages[-1]["role"] == "assistant":
            raise DataError("prompt: the last turn is the assistant's; end a prompt with the user's turn")
        self.check(messages)
        return tokenize(self._tokenizer, self._finder.prompt(messages)).ids

    def encode(self, messages: Messages) -> Encoded:
        """Encodes a chat as one rendering of the template.

        Returns:
            `(ids, mask)`: the mask is 1 on every assistant's turn, from the end of the generation prompt through the
            token that ends the turn.

        Raises:
            DataError: see `check`; or the template renders earlier turns differently when others follow, so that one
                mask over the whole chat would train responses in contexts that do not occur in generation: use
                `samples`.
        """
        self.check(messages)
        return self._masked(*self._finder.whole(messages))

    def samples(self, messages: Messages, last_response_only: bool = False) -> list[Encoded]:
        """Encodes a chat as training samples.

        One sample is the whole chat. If the template renders earlier turns differently when others follow, each
        assistant's turn becomes a sample, together with the chat before it. If the template leaves the last turn open,
        the token that ends a turn is appended.

        Args:
            messages: the chat.
            last_response_only: train on the assistant's last turn only.

        Raises:
            DataError: see `check`; or a finished turn does not continue its prompt.
        """
        self.check(messages)
        turns = [turn for turn, message in enumerate(messages, start=1) if message["role"] == "assistant"]
        if not (turns and last_response_only):
            try:
                text, spans = self._finder.whole(messages)
                return [self._masked(text, spans, close=True)]
            except UnstableError:
                pass
        return [self._last(messages[:turn]) for turn in (turns[-1:] if last_response_only else turns)]

    def response(self, messages: Messages) -> tuple[list[int], list[int]]:
        """Encodes a chat that ends with the assistant's turn, split before it.

        Returns:
            `(prompt_ids, response_ids)`: the response includes the token that ends the turn, and nothing after it.

        Raises:
            DataError: see `samples`; or the last turn is not the assistant's.
        """
        if messages and messages[-1]["role"] != "assistant":
            raise DataError("the last turn is not the assistant's; end with a response")
        self.check(messages)
        ids, mask = self._last(messages)
        start = mask.index(1)
        return ids[:start], ids[start : start + sum(mask)]

    def _last(self, messages: Messages) -> Encoded:
        """Encodes a chat that ends with the assistant's turn; the mask is 1 on that turn only."""
        text, span = self._finder.last(messages)
        return self._masked(text, [span], close=True)

    def _masked(self, text: str, spans: Sequence[Span], close: bool = False) -> Encoded:
        """Encodes a rendering, with mask 1 on `spans`; `close` adds the end of an open last turn."""
        tokens = tokenize(self._tokenizer, text)
        mask = [0] * len(tokens.ids)
        for span in spans:
            for index in tokens.between(span.start, span.stop):
                mask[index] = 1
        if close and spans and not spans[-1].closed:
            return [*tokens.ids, self.ends[0]], [*mask, 1]
        return tokens.ids, mask


def chat_format(tokenizer: Any) -> ChatFormat:
    """Returns the chat format of a tokenizer; cached per tokenizer and template.

    Raises:
        ConfigError: the tokenizer has no chat template, or one that cannot be used; see `ChatFormat`.
    """
    return _format(tokenizer, probes.template_of(tokenizer), len(tokenizer), tokenizer.eos_token)


@lru_cache(maxsize=16)
def _format(tokenizer: Any, template: str, size: int, eos: str | None) -> ChatFormat:
    del template, size, eos  # part of the cache key, since a tokenizer may be modified
    return ChatFormat(tokenizer)


def encode_chat(tokenizer: Any, messages: Sequence[Mapping[str, Any]]) -> Encoded:
    """Encodes a whole chat in the tokenizer's chat format; see `ChatFormat.encode`."""
    return chat_format(tokenizer).encode(messages)


def encode_prompt(tokenizer: Any, messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """Encodes a chat that awaits a response; see `ChatFormat.prompt`."""
    return chat_format(tokenizer).prompt(messages)
