"""A choice question, whatever layout its publisher gave it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from data.tables import DataError

LETTERS: Final = "ABCDEFGHIJ"
"""What options are lettered with; a question has 2 to 10 of them."""

NO_QUESTION: Final = "question missing"
NO_OPTION: Final = "option missing"
NO_ANSWER: Final = "answer is none of the options"
COUNTED: Final = "answer is a number"
UNCLEAR: Final = "options not readable"


@dataclass(frozen=True)
class ChoiceQuestion:
    """`options[i]` has the letter `LETTERS[i]`."""

    question: str
    options: tuple[str, ...]
    answers: tuple[int, ...]
    """Indices of the right options, ascending; empty where the record does not say."""
    explanation: str = ""

    @property
    def asked(self) -> str:
        """The question with its lettered options, a line each; the question alone where its text has them already."""
        marked = [
            rf"{letter}\s*[.．、:：)）\s]\s*{re.escape(text)}"
            for letter, text in zip(LETTERS, self.options, strict=False)
        ]
        if all(re.search(one, self.question) for one in marked):
            return self.question
        return "\n".join([self.question, *map(self.lettered, range(len(self.options)))])

    def lettered(self, index: int) -> str:
        """An option with its letter, as `B. text`."""
        return f"{LETTERS[index]}. {self.options[index]}"


class UnusableQuestion(DataError):
    """A record with options that cannot be read as a choice question.

    Attributes:
        kind: what counts as the same fault, one of the constants above.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
