from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from actors.config import RolloutConfig
from actors.roles import rollout
from actors.roles.rollout import Rollout


def test_a_response_ends_with_the_chat_formats_ends_and_the_stops(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    class FakeEngine:
        weights, memory = 0, None

        def __init__(self, *_: Any) -> None:
            self.tokenizer = tokenizer

        def stream(self, prompts: Any, *, sampling: Any, **_: Any) -> Any:
            asked.append(sampling)
            yield from (
                (index, SimpleNamespace(tokens=[2], logprobs=[0.0], finished=True)) for index in range(len(prompts))
            )

    monkeypatch.setattr(rollout, "Engine", FakeEngine)
    role = Rollout(threads=1)
    role.setup(RolloutConfig(stop=("[bot]:",)), "model", 0, None, (2, 7))
    role.generate(pa.table({"prompt": [[5]], "seed": [1]}), [0], -1)
    assert asked[0].stop == (2, 7, tokenizer.convert_tokens_to_ids("[bot]:"))
