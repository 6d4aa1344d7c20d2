from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from evals.models.engine import Response
from evals.models.subject import Settings, Subject
from evals.tasks.ner import evaluate, ner_metrics, question, types_of, with_types

DRUG = {"type": "药物", "start": 0, "end": 3, "text": "布洛芬"}


def test_answers_are_parsed_and_what_cannot_be_is_counted(tokenizer: Any) -> None:
    texts = ["药物:布洛芬;症状:头痛", "无", "我不知道", "", "药物:布洛芬、布洛芬"]
    asked: list[list[int]] = []

    def generate(prompts: list[list[int]], max_tokens: int, label: str) -> list[Response]:
        asked.extend(prompts)
        return [Response([1], text, finished=text != "") for text in texts]

    subject = Subject(
        folder=SimpleNamespace(tokenizer=tokenizer),  # type: ignore[arg-type]
        engine=SimpleNamespace(generate=generate),  # type: ignore[arg-type]
        settings=Settings(seed=0, limits={}),
    )
    rows = [{"text": f"布洛芬{n}", "entities": [] if n == 1 else [DRUG, DRUG]} for n in range(5)]
    metrics = evaluate(subject, with_types(rows))
    assert "找出句中的疾病、症状、药物和检查：布洛芬2" in tokenizer.decode(asked[2])
    assert (metrics["right"], metrics["found"], metrics["gold"]) == (2, 3, 4)
    assert (metrics["unparseable"], metrics["empty"], metrics["unfinished"], metrics["n"]) == (2, 1, 0.2, 5)
    assert metrics["by_type"]["药物"]["precision"] == 1.0
    assert metrics["by_type"]["症状"] == {
        **dict.fromkeys(("precision", "recall", "f1", "right", "gold"), 0),
        "found": 1,
        "overlap": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "absent": 1},
    }


def test_other_types_are_named_in_the_question_and_read_from_the_answer() -> None:
    rows = [{"text": "胃窦癌术后", "entities": [{"type": "疾病和诊断", "start": 0, "end": 3, "text": "胃窦癌"}]}]
    assert types_of(rows) == ("疾病和诊断",)
    assert "类型有疾病和诊断。" in question("胃窦癌术后", types_of(rows))
    metrics = ner_metrics(rows, ["疾病和诊断：胃窦"], types_of(rows))
    assert (metrics["f1"], metrics["overlap"]["f1"]) == (0.0, pytest.approx(1.0))
