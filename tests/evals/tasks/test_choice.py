from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from data.chat import encode_chat
from data.tables import DataError
from evals.models.subject import Settings, Subject
from evals.tasks.choice import check, choice_metrics, evaluate, pick_options

ROW: dict[str, Any] = {"question": "用什么药？", "options": ["甲", "乙", "丙", "丁"], "answer": 2, "subject": "药物"}


def _says(answer: str) -> dict[str, str]:
    return {"role": "assistant", "content": answer}


def test_mean_and_sum_pick_by_hand() -> None:
    long, short = [-1.0, -1.0, -1.0], [-2.0]  # better a token, worse in all
    assert pick_options([long, short], [2]) == [(0, 1)]
    assert pick_options([short, long, [-3.0], [-0.5, -9.0], [-4.0]], [2, 3]) == [(1, 0), (0, 0)]


def test_equal_options_go_to_the_first() -> None:
    assert pick_options([[-1.0], [-1.0]], [2]) == [(0, 0)]


def test_always_a_scores_the_share_of_a_and_shows_it() -> None:
    rows = [{**ROW, "answer": answer} for answer in (0, 0, 1, 2, 3)]
    metrics = choice_metrics(rows, [(0, 0)] * 5)
    assert (metrics["accuracy"], metrics["accuracy_sum"]) == (0.4, 0.4)
    assert metrics["letters"] == {"A": 5, "B": 0, "C": 0, "D": 0}
    assert metrics["answers"] == {"A": 2, "B": 1, "C": 1, "D": 1}


def test_subjects_apart_and_chance() -> None:
    rows = [ROW, {**ROW, "subject": "科室"}, {**ROW, "options": ["甲", "丙"], "answer": 1}]
    metrics = choice_metrics(rows, [(2, 0), (0, 2), (1, 1)])
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert metrics["by_subject"] == {
        "科室": {"accuracy": 0.0, "accuracy_sum": 1.0, "n": 1},
        "药物": {"accuracy": 1.0, "accuracy_sum": 0.5, "n": 2},
    }
    assert metrics["chance"] == pytest.approx((0.25 + 0.25 + 0.5) / 3)
    assert metrics["n"] == 3


def test_only_the_option_and_its_end_mark_count(tokenizer: Any) -> None:
    """A lookup model that knows the right option, and finds everything else, the question included, impossible."""
    options = ["布洛芬片", "头痛", "内科复诊", "休息"]
    rows = [{**ROW, "question": f"第{n}题", "options": options, "answer": n % 4} for n in range(8)]
    chats = [[{"role": "user", "content": r["question"]}, _says(r["options"][r["answer"]])] for r in rows]
    right = [encode_chat(tokenizer, chat) for chat in chats]

    def score(sequences: list[list[int]], label: str) -> list[list[float]]:
        masks = [next((mask for known, mask in right if known == ids), [0] * len(ids)) for ids in sequences]
        return [[-0.1 if said else -50.0 for said in mask[1:]] for mask in masks]

    subject = Subject(
        folder=SimpleNamespace(tokenizer=tokenizer),  # type: ignore[arg-type]
        engine=SimpleNamespace(score=score),  # type: ignore[arg-type]
        settings=Settings(seed=0, limits={}),
    )
    metrics = evaluate(subject, rows)
    assert (metrics["accuracy"], metrics["accuracy_sum"], metrics["n"]) == (1.0, 1.0, 8)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"options": ["甲"]}, "has 1 options"),
        ({"options": ["甲", " ", "丙", "丁"]}, "empty or given twice"),
        ({"options": ["甲", "乙", "甲", "丁"]}, "empty or given twice"),
        ({"answer": 4}, "answer 4 is outside"),
        ({"answer": -1}, "answer -1 is outside"),
        ({"question": " "}, "question is empty"),
    ],
)
def test_a_question_without_one_right_answer_is_refused(change: dict[str, Any], said: str) -> None:
    check(ROW)
    with pytest.raises(DataError, match=said):
        check({**ROW, **change})
