"""What a judge is given and what it must give back: samples, and one finite number for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, Final, Protocol, TypedDict

from configs.errors import RunError
from configs.recipe import short

# Rewards are a float32 column: what overflows there is as good as infinite.
LARGEST: Final = 3.4028234e38


class Sample(TypedDict):
    """One answer to one prompt."""

    prompt: list[dict[str, str]]
    """The messages before the answer, each with `role` and `content`; the last is the user's."""
    response: str
    """The answer as text, without special tokens."""
    finished: bool
    """Whether the answer ended by itself, and not at the length limit."""
    prompt_id: int
    """Which prompt of the table it is, from 0."""
    sample: int
    """Which answer to that prompt it is, from 0."""
    row: dict[str, Any]
    """Every further column of the prompt's row, e.g. a reference answer."""


class Judge(Protocol):
    """A source of rewards beside the reward model."""

    name: str

    def score(self, samples: list[Sample]) -> list[float]:
        """One finite number a sample, in order. Raises JudgeError."""


class JudgeError(RunError):
    """A judge failed. The text is one line: which judge, which sample or batch, what it gave."""

    def __init__(self, text: str) -> None:
        super().__init__(" ".join(text.split()))


def label_of(name: str) -> str:
    """How messages call the judge of that name."""
    return f"reward '{name}'"


def checked(judge: str, samples: Sequence[Sample], returned: object) -> list[float]:
    """The rewards that a judge returned for `samples`, as floats. True and False are 1 and 0.

    Args:
        judge: how messages call the judge.
        samples: what it was given; at least one.
        returned: a list, tuple or one-dimensional array (numpy's, torch's) of numbers, hopefully.

    Raises:
        JudgeError: it is something else, has another length, or a number in it is none, not finite or more than
            float32 holds; names the sample.
    """
    values = _plain(returned)
    if not isinstance(values, list | tuple):
        raise JudgeError(
            f"{judge}: returned {short(returned)} for {describe(samples)}; return a list of one number a sample"
        )
    if len(values) != len(samples):
        lacking = samples[len(values) :][:1]
        which = f"the first without one is {describe(lacking)}" if lacking else f"the last is {describe(samples[-1:])}"
        raise JudgeError(f"{judge}: returned {len(values)} rewards for {len(samples)} samples, of which {which}")
    rewards = [_number(_plain(value)) for value in values]
    for sample, value, reward in zip(samples, values, rewards, strict=True):
        if not abs(reward) <= LARGEST:
            raise JudgeError(
                f"{judge}: returned {short(value)} for {describe([sample])}; return one finite number a sample"
            )
    return rewards


def describe(samples: Sequence[Sample]) -> str:
    """A sample by its numbers and the beginning of its texts; of several, the first and the last."""
    first, last = samples[0], samples[-1]
    if len(samples) > 1:
        return f"{len(samples)} samples, from {_numbers(first)} to {_numbers(last)}"
    return f"{_numbers(first)} (asked {beginning(first['prompt'][-1]['content'])}, answered {beginning(first['response'])})"


def beginning(text: str, characters: int = 60) -> str:
    """The first characters of a text in quotes, on one line: control characters are written as escapes."""
    return repr(text[:characters]) + ("..." if len(text) > characters else "")


def _numbers(sample: Sample) -> str:
    return f"prompt {sample['prompt_id']} sample {sample['sample']}"


def _plain(value: Any) -> Any:
    """Arrays and scalars of numpy and torch as Python's lists and numbers."""
    return value.tolist() if hasattr(value, "tolist") else value


def _number(value: object) -> float:
    """A number as a float; what is none becomes NaN."""
    if not isinstance(value, Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:  # an int beyond float64
        return math.inf
