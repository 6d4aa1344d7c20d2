"""Options are weighed by the checkpoint's own tokens."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from chat_formats import chat, families, qwen3

from data.chat import encode_prompt
from evals.models.respondent import LocalRespondent

THINKING = "<think>\n\n</think>\n\n"


class FakeEngine:
    """Answers nothing; remembers what it is asked."""

    def __init__(self, tokenizer: Any) -> None:
        self.folder = SimpleNamespace(tokenizer=tokenizer, context=512)
        self.asked: list[Any] = []

    def option_logprobs(self, prompts: list[list[int]], choices: list[list[int]], label: str) -> list[list[float]]:
        self.asked = [prompts, choices]
        return [[0.0] * len(own) for own in choices]

    def score(self, sequences: list[list[int]], label: str) -> list[list[float]]:
        self.asked = sequences
        return [[1.0] * (len(sequence) - 1) for sequence in sequences]


@pytest.mark.parametrize(("tokenizer", "before"), [(qwen3(), THINKING), (families()["chatml"].tokenizer, "")])
def test_lettered_options_are_one_token_each(tokenizer: Any, before: str) -> None:
    engine: Any = FakeEngine(tokenizer)
    LocalRespondent(engine).option_logprobs([chat("头痛？")], ["AB"], "letters")
    prompts, choices = engine.asked
    assert prompts == [encode_prompt(tokenizer, chat("头痛？")) + tokenizer.encode(before)]
    assert tokenizer.convert_ids_to_tokens(choices[0]) == ["A", "B"]


def test_long_options_are_scored_without_the_token_that_ends_a_turn() -> None:
    tokenizer = families()["glm 4"].tokenizer
    engine: Any = FakeEngine(tokenizer)
    weights = LocalRespondent(engine).option_logprobs([chat("q")], [["no", "yes"]], "options")
    assert [tokenizer.decode(sequence) for sequence in engine.asked] == [
        "[gMASK]<sop><|user|>\nq<|assistant|>\n" + option for option in ("no", "yes")
    ]
    assert weights == [[2.0, 3.0]]
