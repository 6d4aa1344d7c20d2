"""Why rows were left out: said in full, counted so that the numbers add up, and listed even when no row is left."""

from __future__ import annotations

import json
import re

import pytest

from data.prepare.__main__ import main
from data.prepare.reasons import MOST_KINDS, OTHERS, Reasons, kind_of_reason
from data.tables import DataError


def write(path, records):
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records), "utf-8")
    return path


def test_kinds_leave_out_what_is_particular():
    one = "chat: turn 0 (user): contains the reserved mark '<s>'; remove it from the text"
    other = "chat: turn 12 (user): contains the reserved mark '</s>'; remove it from the text"
    assert kind_of_reason(one) == kind_of_reason(other)
    assert kind_of_reason(one).endswith("'…'; remove it from the text")


def test_the_first_of_each_kind_is_kept_and_kinds_are_bounded():
    both, later = Reasons(), Reasons()
    both.count("a:1", "turn 1 is empty")
    later.count("b:7", "turn 9 is empty")
    for number in range(MOST_KINDS + 5):
        later.count("b:8", f"no column c{number}x")
    both.add(later)
    assert both.first["turn … is empty"] == "a:1: turn 1 is empty"
    assert (both.counts["turn … is empty"], both.total()) == (2, MOST_KINDS + 7)
    assert len(both.counts) == MOST_KINDS + 1
    assert both.counts[OTHERS] > 0


def test_the_reason_is_said_in_full_where_no_row_is_left(tmp_path, prepared):
    marks = write(tmp_path / "a.jsonl", [{"query": "<s>问：头晕", "response": "先测血压。"}] * 2)
    with pytest.raises(
        DataError, match=r"2 chat: turn 0 \(user\): contains the reserved mark '<s>'; remove it .*a.jsonl:1"
    ):
        prepared("chat", marks)
    rejects = [json.loads(line) for line in (tmp_path / "out/_rejects.jsonl").read_text("utf-8").splitlines()]
    assert [one["line"] for one in rejects] == [1, 2]
    assert all("reserved mark '<s>'" in one["reason"] for one in rejects)
    good = write(tmp_path / "b.jsonl", [{"query": "头晕怎么办", "response": "先测血压。"}])
    assert len(prepared("chat", good)[1]) == 1
    with pytest.raises(DataError, match=r"out.rejects.jsonl has every reason"):
        prepared("chat", marks)
    assert (tmp_path / "out/_manifest.json").exists()
    assert len((tmp_path / "out.rejects.jsonl").read_text("utf-8").splitlines()) == 2


def test_columns_are_named_with_what_to_do(tmp_path, prepared):
    path = write(tmp_path / "a.jsonl", [{"Content": "头晕怎么办？", "Summary": "先测血压。"}])
    with pytest.raises(DataError, match=r"\(Content, Summary\); name them with --map FIELD=COLUMN"):
        prepared("chat", path)


@pytest.mark.parametrize(
    ("columns", "options"),
    [
        (("患者提问", "医生回答"), "--map question=患者提问 --map answer=医生回答"),
        (("答案", "科室", "问题"), "--map question=问题 --map answer=答案"),
        (("正文", "来源"), "--map text=正文"),
        (("甲", "乙"), "--map question=COLUMN --map answer=COLUMN"),
    ],
)
def test_chinese_columns_are_suggested(columns, options, tmp_path, prepared):
    path = write(tmp_path / "a.jsonl", [{column: f"{column}的内容" for column in columns}])
    with pytest.raises(DataError, match=rf"name them with --map FIELD=COLUMN, as {options} \("):
        prepared("text" if "text=" in options else "chat", path)


def test_the_console_adds_up(tmp_path, capsys):
    records = [
        {"question": "头痛怎么办？", "answer": "多休息，多喝水。"},
        {"question": "头痛怎么办？", "answer": "多休息，多喝水。"},
        {"questions": ["什么是感冒？", "感冒是什么病？"], "answers": ["感冒是上呼吸道感染。"]},
        {"question": "<s>", "answer": "答"},
        {"question": "</s>", "answer": "答"},
        *({f"column{letter}": "x"} for letter in "abcdefghijklmn"),
    ]
    path = write(tmp_path / "a.jsonl", records)
    assert main(["--input", str(path), "--kind", "chat", "--out", str(tmp_path / "out"), "--skip", "near"]) == 0
    said = capsys.readouterr().out
    found = {
        name: sum(map(int, re.findall(pattern, said)))
        for name, pattern in {
            "in": r"(\d+) records in",
            "out": r"(\d+) rows out",
            "more": r"(\d+) extra rows",
            "bad": r"(\d+) bad",
            "removed": r"(\d+) removed",
        }.items()
    }
    assert found == {"in": 19, "out": 3, "more": 1, "bad": 16, "removed": 1}
    assert found["in"] + found["more"] == found["out"] + found["bad"] + found["removed"]
    assert f"first: {path}:4: chat: turn 0 (user): contains the reserved mark '<s>'; remove it from the text" in said
