from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.tables import DataError
from evals.tasks.dialogue.readers import read_dialogues

CORPORA = Path(__file__).resolve().parents[4] / "../shared/corpora"
HETMC = """id\t1\tdepartment\t眼科
P\t眼睛模糊\t1
D\t多久了？\t0
D\t去过医院吗？\t0
P\t半个月\t0
D\t请到医院检查。\t2
SUM1\t眼睛模糊

id\t2
D\t您好\t0
P\t头痛\t1
D\t多休息\t2

id\t3
P\t谢谢\t0
"""


def test_hetmc_every_turn_of_the_doctors_is_an_exchange(tmp_path: Path) -> None:
    file = tmp_path / "a.dialog"
    file.write_text(HETMC, encoding="utf-8")
    dialogues = read_dialogues(file)
    first, second, third = dialogues.conversations
    assert [(e.reference, len(e.chat), e.last) for e in first] == [
        ("多久了？\n去过医院吗？", 1, False),
        ("请到医院检查。", 3, True),
    ]
    assert [turn["role"] for turn in first[1].chat] == ["user", "assistant", "user"]
    assert [(e.chat[0]["content"], e.reference) for e in second] == [("头痛", "多休息")]
    assert [(e.fault, e.last) for e in third] == [("no conversation", True)]
    assert [fault.kind for fault in dialogues.faults] == ["begins with the doctor", "no conversation"]
    assert len(dialogues.files[str(file)]) == 64


def test_question_and_answer_and_history_lists(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    records = [
        {"instruction": "头痛怎么办", "input": "", "output": "多休息"},
        {"instruction": "好了", "input": "", "output": "保重", "history": [["头痛", "休息"], ["还痛", "吃药"]]},
        {"conversations": [{"from": "human", "value": "问"}, {"from": "gpt", "value": "答"}]},
    ]
    file.write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    conversations = read_dialogues(file).conversations
    assert [[e.reference for e in own] for own in conversations] == [["多休息"], ["休息", "吃药", "保重"], ["答"]]
    assert len(conversations[1][2].chat) == 5


def test_what_cannot_be_asked_stays_in_and_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    rows = [
        {"question": "头痛", "answer": " "},
        {"text": "没有问答"},
        {"question": "头痛", "answer": "休息"},
        {"question": "头痛", "answer": "休息"},
        {"question": "[bot]:", "answer": "休息"},
    ]
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n{坏", encoding="utf-8")
    dialogues = read_dialogues(file)
    assert len(dialogues.conversations) == 6
    assert {(fault.kind, fault.where.partition(",")[0]) for fault in dialogues.faults} == {
        ("empty reference", "a.jsonl:1"),
        ("no conversation", "a.jsonl:2"),
        ("conversation given twice", "a.jsonl:4"),
        ("unusable turn", "a.jsonl:5"),
        ("no conversation", "a.jsonl:6"),
    }


def test_a_file_without_anything_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="the file is empty"):
        read_dialogues(tmp_path / "a.jsonl")


@pytest.mark.skipif(not (CORPORA / "hetmc_train.dialog").is_file(), reason="HET-MC is not here")
def test_hetmc_is_read_whole() -> None:
    dialogues = read_dialogues(CORPORA / "hetmc_train.dialog")
    assert len(dialogues.conversations) == 360
    assert sum(fault.kind == "conversation given twice" for fault in dialogues.faults) == 360 - 36
    assert sum(not e.fault for own in dialogues.conversations for e in own if e.last) > 340


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", '{"问题": "头痛", "回答": "休息"}\n'), ("a.csv", "department,ask,reply\n内科,头痛,休息\n")],
)
def test_a_file_without_a_conversation_is_refused_with_its_columns(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(
        DataError, match=r"none of its 1 records is a conversation .*(回答|reply).*question and answer"
    ) as told:
        read_dialogues(tmp_path / name)
    assert "--map" not in str(told.value)
