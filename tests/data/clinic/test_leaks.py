from __future__ import annotations

import re
from itertools import permutations

import pytest

from data.clinic import phrasing
from data.clinic.build import Clinic
from data.clinic.dialogues import Row, chat
from data.clinic.leaks import check_leaks
from data.tables import DataError


def with_planted(clinic: Clinic, name: str, row: Row) -> dict[str, list[Row]]:
    return clinic.rows | {name: [*clinic.rows[name], row]}


def test_a_clinic_has_no_leak(clinic: Clinic) -> None:
    check_leaks(clinic.rows, clinic.split)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("pretrain.heldout", "text"),
        ("ner.heldout", "text"),
        ("choice.heldout", "question"),
        ("open.heldout", "question"),
        ("open.heldout", "reference"),
        ("preference.heldout", "chosen"),
    ],
)
def test_a_planted_text_is_found(clinic: Clinic, name: str, column: str) -> None:
    text = clinic.rows[name][7][column]
    planted = with_planted(clinic, "pretrain.train", {"text": f"前文。{text}后文。"})
    with pytest.raises(DataError, match=f"pretrain.train: contains a text of .*{re.escape(text)}"):
        check_leaks(planted, clinic.split)


@pytest.mark.parametrize(("name", "column"), [("prompts.heldout", "prompt"), ("sft.heldout", "messages")])
def test_a_planted_question_is_found(clinic: Clinic, name: str, column: str) -> None:
    question = next(m["content"] for m in clinic.rows[name][7][column] if m["role"] == "user")
    planted = with_planted(clinic, "prompts.train", {"prompt": chat([question], [])})
    with pytest.raises(DataError, match="prompts.train: contains a text of"):
        check_leaks(planted, clinic.split)


@pytest.mark.parametrize("name", ["sft.train", "preference.train", "prompts.train"])
def test_a_planted_pair_is_found(clinic: Clinic, name: str) -> None:
    condition, attribute = clinic.split.pairs(heldout=True)[0]
    told = chat([f"说说{condition.name}。"], [f"有{condition.values(attribute)[0]}。"])
    row = {
        "sft.train": {"messages": told, "task": "qa"},
        "preference.train": {"prompt": told[:1], "chosen": told[1]["content"], "rejected": "不知道", "flaw": "rude"},
        "prompts.train": {"prompt": [*told, {"role": "user", "content": "还有吗？"}]},
    }[name]
    with pytest.raises(DataError, match=f"{name}: states the held-out pair .{condition.name}, {attribute}."):
        check_leaks(with_planted(clinic, name, row), clinic.split)


def test_held_out_pairs_are_told_in_pretraining(clinic: Clinic) -> None:
    texts = [row["text"] for row in clinic.rows["pretrain.train"]]
    for condition, attribute in clinic.split.pairs(heldout=True):
        value = condition.values(attribute)[0]
        assert sum(condition.name in text and value in text for text in texts) >= 5


def test_no_phrasing_is_part_of_another() -> None:
    everything = {**phrasing.QUESTIONS, **{f"choice {a}": p for a, p in phrasing.CHOICE_QUESTIONS.items()}}
    for phrasings in [*everything.values(), phrasing.DIAGNOSIS]:
        for one, other in permutations(phrasings.train + phrasings.heldout, 2):
            assert one != other
            if (one in phrasings.heldout) != (other in phrasings.heldout):
                assert one not in other
