"""A choice question, independent of its publisher's layout."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from data.tables import DataError

LETTERS: Final = "ABCDEFGHIJ"
"""The letters of options; a question has 2 to 10 options."""

NO_QUESTION: Final = "question missing"
NO_OPTION: Final = "option missing"
NO_ANSWER: Final = "answer is none of the options"
COUNTED: Final = "answer is a number"
UNCLEAR: Final = "options not readable"


@dataclass(frozen=True)
class ChoiceQuestion:
    """A question whose option `options[i]` has the letter `LETTERS[i]`."""

    question: str
    options: tuple[str, ...]
    answers: tuple[int, ...]
    """Indices of the correct options, in ascending order; empty if the record has no key."""
    explanation: str = ""

    @property
    def asked(self) -> str:
        """The question with its lettered options, one per line; the question alone if its text already has them."""
        marked = [
            rf"{letter}\s*[.．、:：)）\s]\s*{re.escape(text)}"
            for letter, text in zip(LETTERS, self.options, strict=False)
        ]
        if all(re.search(one, self.question) for one in marked):
            return self.question
        return "\n".join([self.question, *map(self.lettered, range(len(self.options)))])

    def lettered(self, index: int) -> str:
        """Returns an option with its letter, as `B. text`."""
        return f"{LETTERS[index]}. {self.options[index]}"


class UnusableQuestion(DataError):
    """A record with options that cannot be read as a choice question.

    Attributes:
        kind: the kind of error: `NO_QUESTION`, `NO_OPTION`, `NO_ANSWER`, `COUNTED`, or `UNCLEAR`.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
