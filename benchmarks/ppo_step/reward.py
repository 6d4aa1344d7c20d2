"""The reward function of the measured steps: differs between responses and costs almost nothing."""

from __future__ import annotations

from typing import Any


def reward(sample: dict[str, Any]) -> float:
    """Returns the number of distinct characters of a response over its length."""
    answer = sample["response"]
    return len(set(answer)) / max(1, len(answer))
