"""The verifiable reward of benchmarks.verifiable, for polite, short responses that end with advice to see a doctor."""

from __future__ import annotations

from typing import Any

LONGEST = 45  # characters


def reward(sample: dict[str, Any]) -> bool:
    """Returns whether the response is finished and meets all criteria."""
    answer = sample["response"]
    polite = answer.startswith("您好") and "啰嗦" not in answer
    return bool(sample["finished"]) and polite and answer.endswith("就医。") and len(answer) <= LONGEST
