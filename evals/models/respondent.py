"""Who answers a benchmark's questions: chats in, texts or log-likelihoods out, whatever stands behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Protocol

from configs.errors import ConfigError
from data.chat import Message, chat_format, encode_prompt
from evals.models.engine import Engine

Chat = Sequence[Message]
"""Turns that end with the user's."""


@dataclass(frozen=True)
class Reply:
    """What was written after a chat."""

    text: str
    finished: bool = True
    """Whether it ended by itself; if not, it was cut off at the allowed length."""
    problem: str = ""
    """Why there is no answer, where there cannot be one, e.g. a chat longer than the context."""


class Respondent(Protocol):
    """A model under a benchmark."""

    def fits(self, chat: Chat, more: int) -> bool:
        """Whether the context has room for a chat and `more` tokens. True where nobody can tell beforehand."""
        ...

    def answer(self, chats: Sequence[Chat], max_tokens: int, label: str) -> list[Reply]:
        """A greedy reply to each chat, in order."""
        ...

    def weigh(self, chats: Sequence[Chat], options: Sequence[Sequence[str]], label: str) -> list[list[float]]:
        """For each chat the log-probability of each of its options as the beginning of the reply, in natural logarithms.

        Raises:
            ConfigError: whoever answers does not tell log-probabilities.
        """
        ...


class LocalRespondent:
    """A model that the vLLM engine of this process has loaded."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._chats: dict[tuple[str, ...], list[int]] = {}

    def fits(self, chat: Chat, more: int) -> bool:
        """See `Respondent`."""
        return len(self._encode(chat)) + more < self._engine.context

    def answer(self, chats: Sequence[Chat], max_tokens: int, label: str) -> list[Reply]:
        """See `Respondent`."""
        answers = self._engine.generate([self._encode(chat) for chat in chats], max_tokens, label=label)
        return [Reply(answer.text, answer.finished) for answer in answers]

    def weigh(self, chats: Sequence[Chat], options: Sequence[Sequence[str]], label: str) -> list[list[float]]:
        """Options that differ in one token after a common beginning, as letters do, take one request a chat, whose
        prefix is cached; others a request each.
        """
        split = [self._split(chat, own) for chat, own in zip(chats, options, strict=True)]
        if all(len(ending) == 1 for _, endings in split for ending in endings):
            prompts, endings = [prompt for prompt, _ in split], [[one for (one,) in own] for _, own in split]
            return self._engine.weigh(prompts, endings, label=label)
        scores = iter(self._engine.score([[*prompt, *one] for prompt, own in split for one in own], label=label))
        return [[sum(next(scores)[len(prompt) - 1 :]) for _ in own] for prompt, own in split]

    def _split(self, chat: Chat, options: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """The tokens that all options share, the chat's first, and what follows for each of them."""
        written = [self._followed_by(chat, option) for option in options]
        shared = [ids[0] for ids in takewhile(lambda ids: len(set(ids)) == 1, zip(*written, strict=False))]
        endings = [ids[len(shared) :] for ids in written]
        if len(endings) > 1 and not all(endings):
            raise ConfigError(f"{list(options)}: one option begins another; word them so that none does")
        return shared, endings

    def _followed_by(self, chat: Chat, option: str) -> list[int]:
        """The chat and an option as the beginning of a reply: without the token that ends a turn, since more may follow."""
        prompt, response = chat_format(self._tokenizer).response([*chat, {"role": "assistant", "content": option}])
        return prompt + response[:-1]

    def _encode(self, chat: Chat) -> list[int]:
        key = tuple(message["content"] for message in chat)
        if key not in self._chats:
            self._chats[key] = encode_prompt(self._tokenizer, chat)
        return self._chats[key]

    @property
    def _tokenizer(self) -> Any:
        return self._engine.folder.tokenizer
