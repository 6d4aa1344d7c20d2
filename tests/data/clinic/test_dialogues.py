from __future__ import annotations

from collections import Counter
from statistics import mean

import pytest

from data.chat import check_messages
from data.clinic import phrasing
from data.clinic.answers import CRAWLED
from data.clinic.build import Clinic
from data.clinic.dialogues import Row, make_sft
from data.clinic.ner import INSTRUCTION, TYPES
from evals.metrics.entities import read_entities


@pytest.fixture(scope="module")
def rows(clinic: Clinic) -> list[Row]:
    return make_sft(clinic.split, 1, 4000, heldout=False)


def answers(rows: list[Row], *tasks: str) -> list[str]:
    return [m["content"] for r in rows if r["task"] in tasks for m in r["messages"] if m["role"] == "assistant"]


def test_shares_and_validity(rows: list[Row]) -> None:
    assert Counter(row["task"] for row in rows) == {"qa": 1520, "ner": 1360, "choice": 640, "dialogue": 480}
    for row in rows:
        check_messages(row["messages"])
        assert row["messages"][-1]["role"] == "assistant"


def test_dialogues_have_several_turns(rows: list[Row]) -> None:
    turns = [sum(m["role"] == "user" for m in row["messages"]) for row in rows if row["task"] == "dialogue"]
    assert set(turns) == {2, 3}


def test_manners_are_mixed_as_declared(rows: list[Row]) -> None:
    texts = answers(rows, "qa", "dialogue")
    assert mean(t.startswith(phrasing.RUDE) for t in texts) == pytest.approx(CRAWLED.rude, abs=0.03)
    whole = [t for t in texts if t.endswith("。")]
    assert mean(not t.endswith(phrasing.SAFETY) for t in whole) == pytest.approx(CRAWLED.missing_advice, abs=0.04)
    assert 1 - len(whole) / len(texts) == pytest.approx(CRAWLED.cut_off, abs=0.02)
    good = mean(t.startswith("您好，") and t.endswith(phrasing.SAFETY) for t in texts)
    assert 0.15 < good < 0.3  # PPO has something to gain, and something to find


def test_ner_answers_name_what_the_sentence_has(rows: list[Row]) -> None:
    for row in rows:
        if row["task"] == "ner":
            question, answer = (m["content"] for m in row["messages"])
            assert question.startswith(INSTRUCTION.format(text=""))
            found = read_entities(answer, TYPES)
            assert found is not None
            assert (answer == "无") == (not found)
            assert all(text in question for _, text in found)


def test_choice_answers_are_bare_values(rows: list[Row], clinic: Clinic) -> None:
    knowledge = clinic.split.knowledge
    for row in rows:
        if row["task"] == "choice":
            question, answer = (m["content"] for m in row["messages"])
            condition = next(c for c in knowledge.conditions if c.name in question)
            told = [a for a in phrasing.CHOICE_QUESTIONS if answer in condition.values(a)]
            assert len(told) == 1
            assert question in [t.format(name=condition.name) for t in phrasing.CHOICE_QUESTIONS[told[0]].train]
