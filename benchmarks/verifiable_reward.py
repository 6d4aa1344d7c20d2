"""A verifiable reward for benchmarks.verifiable: polite, short, and the last sentence recommends seeing a doctor."""

from __future__ import annotations

from typing import Any

LONGEST = 45  # characters


def reward(sample: dict[str, Any]) -> bool:
    """Returns whether the response succeeds."""
    answer = sample["response"]
    polite = answer.startswith("您好") and "啰嗦" not in answer
    return bool(sample["finished"]) and polite and answer.endswith("就医。") and len(answer) <= LONGEST
