"""Input and output of a reward source: samples, and one finite number for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, Final, Protocol, TypedDict

from configs.errors import RunError
from configs.recipe import short

# Rewards are stored in a float32 column, so a value that overflows it is rejected like an infinity.
LARGEST: Final = 3.4028234e38


class Sample(TypedDict):
    """One response to one prompt."""

    prompt: list[dict[str, str]]
    """The messages before the response, each with `role` and `content`; the last is the user's."""
    response: str
    """The response as text, without special tokens."""
    finished: bool
    """Whether the response ended with an end token; False if it was truncated at the length limit."""
    prompt_id: int
    """Index of the prompt in its table, from 0."""
    sample: int
    """Number of the response to that prompt, from 0."""
    row: dict[str, Any]
    """All other columns of the prompt's row, e.g. a reference answer."""


class RewardFunction(Protocol):
    """A reward source other than the reward model: a function or an HTTP endpoint."""

    name: str

    def score(self, samples: list[Sample]) -> list[float]:
        """Returns one finite number per sample, in order. Raises RewardFunctionError."""


class RewardFunctionError(RunError):
    """A reward source failed. The message is one line: the source, the sample or batch, and what it returned."""

    def __init__(self, text: str) -> None:
        super().__init__(" ".join(text.split()))


def label_of(name: str) -> str:
    """Returns the name of a reward source in messages."""
    return f"reward '{name}'"


def checked(reward_function: str, samples: Sequence[Sample], returned: object) -> list[float]:
    """Validates the rewards that a source returned, and converts them to floats; True and False become 1 and 0.

    Args:
        reward_function: name of the source in messages.
        samples: the samples it scored; at least one.
        returned: should be a list, tuple, or one-dimensional array (numpy, torch) of numbers.

    Raises:
        RewardFunctionError: `returned` has another type or length, or a value is not a number, is not finite, or
            exceeds the range of float32; the message names the sample.
    """
    values = _plain(returned)
    if not isinstance(values, list | tuple):
        raise RewardFunctionError(
            f"{reward_function}: returned {short(returned, repr)} for {describe(samples)}; return a list of one number a sample"
        )
    if len(values) != len(samples):
        lacking = samples[len(values) :][:1]
        which = f"the first without one is {describe(lacking)}" if lacking else f"the last is {describe(samples[-1:])}"
        raise RewardFunctionError(
            f"{reward_function}: returned {len(values)} rewards for {len(samples)} samples, of which {which}"
        )
    rewards = [_number(_plain(value)) for value in values]
    for sample, value, reward in zip(samples, values, rewards, strict=True):
        if not abs(reward) <= LARGEST:
            raise RewardFunctionError(
                f"{reward_function}: returned {short(value, repr)} for {describe([sample])}; return one finite number a sample"
            )
    return rewards


def describe(samples: Sequence[Sample]) -> str:
    """Describes samples for an error message.

    One sample is described by its prompt id, its sample number, and the beginning of its prompt and response; several
    by their number and the ids of the first and the last.
    """
    first, last = samples[0], samples[-1]
    if len(samples) > 1:
        return f"{len(samples)} samples, from {_numbers(first)} to {_numbers(last)}"
    return f"{_numbers(first)} (prompt {beginning(first['prompt'][-1]['content'])}, response {beginning(first['response'])})"


def beginning(text: str, characters: int = 60) -> str:
    """Returns the first characters of a text in quotes, on one line, with control characters escaped."""
    return repr(text[:characters]) + ("..." if len(text) > characters else "")


def _numbers(sample: Sample) -> str:
    return f"prompt {sample['prompt_id']} sample {sample['sample']}"


def _plain(value: Any) -> Any:
    """Converts arrays and scalars of numpy and torch to Python lists and numbers."""
    return value.tolist() if hasattr(value, "tolist") else value


def _number(value: object) -> float:
    """Converts a number to a float; anything else becomes NaN, and an int beyond float64 infinity."""
    if not isinstance(value, Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:  # an int beyond float64
        return math.inf
