"""One choice question, and the options in another order."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from evals.faults import Fault

LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class Question:
    """A question with lettered options; `options[i]` has the letter `LETTERS[i]`."""

    where: str
    """FILE:LINE."""
    subject: str
    text: str
    options: tuple[str, ...]
    answer: int
    """Index of the right option; -1 where the file tells none of them, which makes the question unusable."""
    fault: str = ""
    """What makes it unusable: it is not asked, and counts as answered wrong."""

    @property
    def letters(self) -> str:
        return LETTERS[: len(self.options)]

    def rotated(self, by: int) -> Question:
        """Every option `by` places further down, the last ones first."""
        if by == 0:
            return self
        count = len(self.options)
        options = tuple(self.options[(place - by) % count] for place in range(count))
        return replace(self, options=options, answer=(self.answer + by) % count)


@dataclass(frozen=True)
class Exam:
    """The questions of a benchmark, with the examples of each subject that may come before them."""

    name: str
    """Whose prompt it has: `cmmlu`, `ceval` or another."""
    questions: list[Question]
    examples: dict[str, list[Question]]
    faults: list[Fault] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 by path, of every file that was read."""
