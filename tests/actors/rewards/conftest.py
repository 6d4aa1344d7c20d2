"""Samples to reward_function."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from actors.rewards.sample import Sample

MakeSamples = Callable[[int], list[Sample]]


@pytest.fixture
def make_samples() -> MakeSamples:
    """`make_samples(n)`: n samples, two a prompt, every third cut off; sample i answers with i in its text."""

    def make(count: int) -> list[Sample]:
        return [
            {
                "prompt": [{"role": "user", "content": f"病人{i // 2}头痛怎么办？"}],
                "response": f"第{i}个回答：请及时就医。",
                "finished": i % 3 != 0,
                "prompt_id": i // 2,
                "sample": i % 2,
                "row": {"reference": f"答案{i}"},
            }
            for i in range(count)
        ]

    return make
