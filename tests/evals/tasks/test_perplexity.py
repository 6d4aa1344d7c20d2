from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from evals.models.subject import Settings, Subject
from evals.tasks.perplexity import evaluate, perplexities


def test_by_hand() -> None:
    metrics = perplexities([[math.log(0.5), math.log(0.25)], [math.log(0.5)]], characters=4)
    assert metrics["perplexity"] == pytest.approx((2 * 4 * 2) ** (1 / 3))  # tokens weight alike, not texts
    assert metrics["perplexity_per_character"] == pytest.approx(16 ** (1 / 4))
    assert (metrics["tokens"], metrics["characters"]) == (3, 4)


def test_a_model_that_guesses_has_the_size_of_its_vocabulary(tokenizer: Any) -> None:
    seen: list[list[int]] = []

    def score(sequences: list[list[int]], label: str) -> list[list[float]]:
        seen.extend(sequences)
        return [[-math.log(290)] * (len(ids) - 1) for ids in sequences]

    end = tokenizer.eos_token_id
    subject = Subject(
        folder=SimpleNamespace(tokenizer=tokenizer),  # type: ignore[arg-type]
        engine=SimpleNamespace(score=score, context=11),  # type: ignore[arg-type]
        settings=Settings(seed=0, limits={}),
    )
    texts = ["病人头痛", "建议多休息，按时服用布洛芬，三天后复诊。"]
    metrics = evaluate(subject, [{"text": text} for text in texts])
    assert metrics["perplexity"] == pytest.approx(290)
    assert metrics["n"] == 2
    assert seen[0] == [*tokenizer.encode("病人头痛", add_special_tokens=False), end]
    assert all(len(ids) <= 10 for ids in seen)
    assert [token for ids in seen[1:] for token in ids] == [*tokenizer.encode(texts[1], add_special_tokens=False), end]
    assert metrics["tokens"] == sum(len(ids) - 1 for ids in seen)
