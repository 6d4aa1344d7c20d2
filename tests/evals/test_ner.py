from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from evals.engine import Answer
from evals.ner import evaluate, micro_scores
from evals.subject import Settings, Subject

A, B, C = ("药物", "布洛芬"), ("症状", "头痛"), ("疾病", "感冒")


def test_micro_scores_by_hand() -> None:
    scores = micro_scores([{A, B}, {C}, set()], [{A}, {C, B}, {A}])
    assert scores == {
        "precision": pytest.approx(2 / 3),  # A and C of A, B, C
        "recall": pytest.approx(2 / 4),
        "f1": pytest.approx(2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2)),
        "right": 2,
        "found": 3,
        "gold": 4,
    }


def test_an_entity_is_matched_once_within_its_sentence_by_type_and_text() -> None:
    assert micro_scores([[A, A, A]], [[A, A]])["right"] == 2
    assert micro_scores([[A], []], [[], [A]])["right"] == 0
    assert micro_scores([[("症状", "布洛芬")]], [[A]])["right"] == 0


def test_nothing_found_and_nothing_to_find_are_zero_not_an_error() -> None:
    assert micro_scores([[]], [[A]])["f1"] == 0.0
    assert micro_scores([[A]], [[]])["recall"] == 0.0
    assert micro_scores([[]], [[]]) == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "right": 0, "found": 0, "gold": 0}


def test_answers_are_parsed_and_what_cannot_be_is_counted(tokenizer: Any) -> None:
    texts = ["药物:布洛芬;症状:头痛", "无", "我不知道", "", "药物:布洛芬、布洛芬"]
    asked: list[list[int]] = []

    def generate(prompts: list[list[int]], max_tokens: int, label: str) -> list[Answer]:
        asked.extend(prompts)
        return [Answer([1], text, finished=text != "") for text in texts]

    subject = Subject(
        folder=SimpleNamespace(tokenizer=tokenizer),  # type: ignore[arg-type]
        engine=SimpleNamespace(generate=generate),  # type: ignore[arg-type]
        settings=Settings(seed=0, limits={}),
    )
    drug = {"type": "药物", "start": 0, "end": 3, "text": "布洛芬"}
    rows = [{"text": f"布洛芬{n}", "entities": [] if n == 1 else [drug, drug]} for n in range(5)]
    metrics = evaluate(subject, rows)
    assert "找出句中的疾病、症状、药物和检查：布洛芬2" in tokenizer.decode(asked[2])
    assert (metrics["right"], metrics["found"], metrics["gold"]) == (2, 3, 4)
    assert (metrics["unparseable"], metrics["unfinished"], metrics["n"]) == (2, 0.2, 5)
