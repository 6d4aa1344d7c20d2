"""Respondents whose results are known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from evals.models.respondent import Reply

LEAST = -20.0


class Oracle:
    """Writes what `decide` says of the last turn; by log-likelihood it prefers the option that is that text."""

    def __init__(self, decide: Callable[[str], str], longest: int = 10**9) -> None:
        self._decide, self._longest = decide, longest
        self.asked: list[str] = []

    def fits(self, chat: Sequence[Any], more: int) -> bool:
        return sum(len(turn["content"]) for turn in chat) + more <= self._longest

    def answer(self, chats: Sequence[Any], max_tokens: int, label: str) -> list[Reply]:
        self.asked += [chat[-1]["content"] for chat in chats]
        return [Reply(self._decide(chat[-1]["content"])) for chat in chats]

    def option_logprobs(self, chats: Sequence[Any], options: Sequence[Sequence[str]], label: str) -> list[list[float]]:
        self.asked += [chat[-1]["content"] for chat in chats]
        said = [self._decide(chat[-1]["content"]) for chat in chats]
        return [[0.0 if option == text else LEAST for option in own] for text, own in zip(said, options, strict=True)]


def options_of(question: str) -> dict[str, str]:
    """The lettered options of the last question of a prompt."""
    lines = question.rstrip().splitlines()
    lettered = [line.partition(". ") for line in lines if line[1:3] == ". "]
    start = max(place for place, (letter, _, _) in enumerate(lettered) if letter == "A")
    return {letter: text for letter, _, text in lettered[start:]}
