"""The reward of the measured steps: something that differs from answer to answer and costs nothing."""

from __future__ import annotations

from typing import Any


def reward(sample: dict[str, Any]) -> float:
    """The share of an answer's characters that are different ones."""
    answer = sample["response"]
    return len(set(answer)) / max(1, len(answer))
