"""The interface of a model under a benchmark: chats in, responses or log-probabilities out, for any backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Protocol

from configs.errors import ConfigError
from data.chat import Message, chat_format, encode_prompt
from evals.models.engine import Engine

Chat = Sequence[Message]
"""Turns of a chat, the last of which is the user's."""


@dataclass(frozen=True)
class Reply:
    """The response to a chat."""

    text: str
    finished: bool = True
    """Whether the model ended the response; if not, it was truncated at `max_tokens`."""
    problem: str = ""
    """Why there is no response, e.g. a chat longer than the context; empty if there is one."""


class Respondent(Protocol):
    """A model that is evaluated on a benchmark."""

    def fits(self, chat: Chat, more: int) -> bool:
        """Returns whether a chat and `more` further tokens fit the context; True if this is not known beforehand."""
        ...

    def answer(self, chats: Sequence[Chat], max_tokens: int, label: str) -> list[Reply]:
        """Generates a greedy response to each chat, in order.

        Args:
            chats: the chats.
            max_tokens: longest response, in tokens.
            label: text of the progress bar.
        """
        ...

    def option_logprobs(self, chats: Sequence[Chat], options: Sequence[Sequence[str]], label: str) -> list[list[float]]:
        """Returns the log-probability of each option as the beginning of the response (natural logarithm).

        Args:
            chats: the chats.
            options: for each chat, its options.
            label: text of the progress bar.

        Returns:
            For each chat, one value per option.

        Raises:
            ConfigError: the model's backend does not provide log-probabilities.
        """
        ...


class LocalRespondent:
    """The model that is loaded in this process's vLLM engine."""

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

    def option_logprobs(self, chats: Sequence[Chat], options: Sequence[Sequence[str]], label: str) -> list[list[float]]:
        """See `Respondent`.

        If the options of every chat differ only in one token after a common prefix, as letters do, there is one request
        per chat; otherwise there is one request per option.
        """
        split = [self._split(chat, own) for chat, own in zip(chats, options, strict=True)]
        if all(len(ending) == 1 for _, endings in split for ending in endings):
            prompts, endings = [prompt for prompt, _ in split], [[one for (one,) in own] for _, own in split]
            return self._engine.option_logprobs(prompts, endings, label=label)
        scores = iter(self._engine.score([[*prompt, *one] for prompt, own in split for one in own], label=label))
        return [[sum(next(scores)[len(prompt) - 1 :]) for _ in own] for prompt, own in split]

    def _split(self, chat: Chat, options: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """Returns the token ids that all options share, starting with the chat's, and each option's remaining ids."""
        written = [self._followed_by(chat, option) for option in options]
        shared = [ids[0] for ids in takewhile(lambda ids: len(set(ids)) == 1, zip(*written, strict=False))]
        endings = [ids[len(shared) :] for ids in written]
        if len(endings) > 1 and not all(endings):
            raise ConfigError(f"{list(options)}: one option is a prefix of another; reword them")
        return shared, endings

    def _followed_by(self, chat: Chat, option: str) -> list[int]:
        """Encodes a chat and an option as the beginning of a response, without the end-of-turn token."""
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
