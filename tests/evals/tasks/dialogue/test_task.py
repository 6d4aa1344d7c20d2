from __future__ import annotations

import json
from pathlib import Path

import pytest
from respondents import Oracle

from evals.models.subject import Settings
from evals.tasks.dialogue.readers import Dialogues, read_dialogues
from evals.tasks.dialogue.task import evaluate, sampled

SETTINGS = Settings(seed=0, limits={}, open_tokens=4)


@pytest.fixture
def dialogues(tmp_path: Path) -> Dialogues:
    file = tmp_path / "a.jsonl"
    rows = [
        {"question": f"好了{n}", "answer": f"保重身体{n}", "history": [[f"头痛{n}", f"多休息{n}"]]} for n in range(6)
    ]
    rows.append({"question": "空的", "answer": ""})
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return read_dialogues(file)


def says(question: str) -> str:
    number = question[-1]
    return f"保重身体{number}" if question.startswith("好了") else "天地玄黄"


def test_last_turn_and_every_turn_with_the_doctors_own_history(dialogues: Dialogues) -> None:
    oracle = Oracle(says)
    metrics = evaluate(oracle, dialogues, SETTINGS)
    assert metrics["rouge_l"] == metrics["last_turn"]["rouge_l"] == pytest.approx(6 / 7)
    assert metrics["every_turn"]["rouge_l"] == pytest.approx(6 / 13)
    assert (metrics["last_turn"]["n"], metrics["every_turn"]["n"], metrics["n"]) == (7, 13, 13)
    assert metrics["faults"]["counts"] == {"empty reference": 1}
    assert "空的" not in oracle.asked
    assert metrics["samples"][1] == {"question": "好了0", "reference": "保重身体0", "answer": "保重身体0"}


def test_the_last_turn_alone(dialogues: Dialogues) -> None:
    oracle = Oracle(says)
    metrics = evaluate(oracle, dialogues, SETTINGS.model_copy(update={"every_turn": False}))
    assert "every_turn" not in metrics
    assert all(question.startswith("好了") for question in oracle.asked)


def test_oldest_turns_go_first_where_there_is_no_room(dialogues: Dialogues) -> None:
    metrics = evaluate(Oracle(says, longest=8), dialogues, SETTINGS)
    assert metrics["shortened"] == 6
    assert metrics["last_turn"]["rouge_l"] == pytest.approx(6 / 7)
    none = evaluate(Oracle(says, longest=3), dialogues, SETTINGS)
    assert none["rouge_l"] == 0.0
    assert none["faults"]["counts"] == {"empty reference": 1, "longer than the context": 12}


def test_silence_scores_nothing_and_is_counted(dialogues: Dialogues) -> None:
    metrics = evaluate(Oracle(lambda _: "\n"), dialogues, SETTINGS)
    assert (metrics["rouge_l"], metrics["last_turn"]["bleu_1"], metrics["last_turn"]["empty"]) == (0.0, 0.0, 7)
    assert metrics["faults"]["counts"]["the model wrote nothing"] == 12


def test_a_sample_is_of_whole_conversations(dialogues: Dialogues) -> None:
    few = sampled(dialogues, 3, seed=0)
    assert len(few.conversations) == 3
    assert all(own in dialogues.conversations for own in few.conversations)
    assert sampled(dialogues, 3, seed=0) == few
    assert sampled(dialogues, 7, seed=0) is dialogues
