"""A reward that can be checked, for benchmarks.verifiable: polite, short, and the last sentence sends to a doctor."""

from __future__ import annotations

from typing import Any

LONGEST = 45  # characters


def reward(sample: dict[str, Any]) -> bool:
    """Whether the answer succeeds."""
    answer = sample["response"]
    polite = answer.startswith("您好") and "啰嗦" not in answer
    return bool(sample["finished"]) and polite and answer.endswith("就医。") and len(answer) <= LONGEST
