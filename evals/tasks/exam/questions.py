"""Data classes of choice questions and exams, and the rotation of a question's options."""

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
    """Index of the correct option, or of the first one if several are correct; -1 if the question is unusable."""
    fault: str = ""
    """Why the question is unusable, so that it is not asked and counts as wrong; empty if it is usable."""
    more_answers: tuple[int, ...] = ()
    """Indices of the other correct options."""
    detail: str = ""
    """Details of the fault."""

    @property
    def letters(self) -> str:
        """The letters of the options."""
        return LETTERS[: len(self.options)]

    @property
    def rights(self) -> frozenset[int]:
        """Indices of the correct options."""
        return frozenset((self.answer, *self.more_answers))

    @property
    def key(self) -> str:
        """The letters of the correct options."""
        return "".join(LETTERS[index] for index in sorted(self.rights))

    @property
    def has_several_answers(self) -> bool:
        """Whether more than one option is correct."""
        return bool(self.more_answers)

    def rotated(self, by: int) -> Question:
        """Returns the question with its options rotated: each moves `by` places down, the last ones to the front."""
        if by == 0:
            return self
        count = len(self.options)
        options = tuple(self.options[(place - by) % count] for place in range(count))
        moved = [(index + by) % count for index in (self.answer, *self.more_answers)]
        return replace(self, options=options, answer=moved[0], more_answers=tuple(moved[1:]))


@dataclass(frozen=True)
class Exam:
    """The questions of a benchmark, and the few-shot examples of each subject."""

    name: str
    """Name that selects the wording of the prompt: `cmmlu`, `ceval`, or another."""
    questions: list[Question]
    examples: dict[str, list[Question]]
    faults: list[Fault] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 by path, of every file that was read."""

    def most_examples(self) -> int:
        """Returns the largest number of examples of any subject."""
        return max(map(len, self.examples.values()), default=0)
