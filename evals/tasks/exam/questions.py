"""One choice question, and the options in another order."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from data.choices.question import LETTERS
from evals.tasks.faults import Fault


@dataclass(frozen=True)
class Question:
    """A question with lettered options; `options[i]` has the letter `LETTERS[i]`."""

    where: str
    """FILE:LINE."""
    subject: str
    text: str
    options: tuple[str, ...]
    answer: int
    """Index of the right option, of the first one if several are right; -1 where the question is unusable."""
    fault: str = ""
    """What makes it unusable: it is not asked, and counts as answered wrong."""
    more_answers: tuple[int, ...] = ()
    """Indices of the other right options."""
    detail: str = ""
    """What in the file the fault is about."""

    @property
    def letters(self) -> str:
        """The letters of its options."""
        return LETTERS[: len(self.options)]

    @property
    def rights(self) -> frozenset[int]:
        """Indices of the right options."""
        return frozenset((self.answer, *self.more_answers))

    @property
    def key(self) -> str:
        """The letters of the right options."""
        return "".join(LETTERS[index] for index in sorted(self.rights))

    @property
    def has_several_answers(self) -> bool:
        """Whether more than one option is right."""
        return bool(self.more_answers)

    def rotated(self, by: int) -> Question:
        """Every option `by` places further down, the last ones first."""
        if by == 0:
            return self
        count = len(self.options)
        options = tuple(self.options[(place - by) % count] for place in range(count))
        moved = [(index + by) % count for index in (self.answer, *self.more_answers)]
        return replace(self, options=options, answer=moved[0], more_answers=tuple(moved[1:]))


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

    def most_examples(self) -> int:
        """How many examples the subject with the most of them has."""
        return max(map(len, self.examples.values()), default=0)
