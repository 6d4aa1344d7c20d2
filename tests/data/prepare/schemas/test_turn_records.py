"""Dialogues whose turns are records of their own."""

from __future__ import annotations

import json

import pytest

from data.prepare.schemas.convert import texts_of
from data.tables import DataError


def write(path, records):
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records), "utf-8")
    return path


EXCHANGES = [
    {"id": "d1", "instruction": "咳嗽三天。", "output": "有发热吗？"},
    {"id": "d1", "instruction": "没有发热。", "output": "多喝水，观察两天。"},
    {"id": "d2", "instruction": "头晕。", "output": "先测血压。"},
]
TURNS = [
    {"id": one["id"], "role": role, "content": one[name]}
    for one in EXCHANGES
    for role, name in (("患者", "instruction"), ("医生", "output"))
]


@pytest.mark.parametrize("records", [EXCHANGES, TURNS])
def test_adjacent_records_of_one_id_are_a_dialogue(tmp_path, prepared, records):
    path = write(tmp_path / "a.jsonl", records)
    outcome, rows, rejects = prepared("chat", path, dialogue_id="id", skip=("near",))
    assert [texts_of(row) for row in rows] == [
        ["咳嗽三天。", "有发热吗？", "没有发热。", "多喝水，观察两天。"],
        ["头晕。", "先测血压。"],
    ]
    assert [row["task"] for row in rows] == ["dialogue", "qa"]
    assert (outcome.report["records"], rejects) == (2, [])


def test_what_belongs_to_no_dialogue_is_named(tmp_path, prepared):
    path = write(tmp_path / "a.jsonl", [*EXCHANGES, {"instruction": "问", "output": "答"}, {"id": "d3", "x": "问"}])
    _, rows, rejects = prepared("chat", path, dialogue_id="id", skip=("near",))
    assert len(rows) == 2
    assert [one["line"] for one in rejects] == [4, 5]
    assert "has no id, which --dialogue-id names" in rejects[0]["reason"]
    assert "columns id, x are not a turn" in rejects[1]["reason"]


def test_turns_without_the_option_are_refused_with_it(tmp_path, prepared):
    with pytest.raises(DataError, match=r"is one turn \(columns id, role, content\); .* --dialogue-id COLUMN"):
        prepared("chat", write(tmp_path / "a.jsonl", TURNS))


def test_a_dialogue_in_two_places_is_refused_where_it_goes_on(tmp_path, prepared):
    path = write(tmp_path / "a.jsonl", [*EXCHANGES, EXCHANGES[1]])
    _, rows, rejects = prepared("chat", path, dialogue_id="id", skip=("near",))
    assert len(rows) == 2
    assert [one["line"] for one in rejects] == [4]
    assert rejects[0]["reason"] == "id is that of earlier records, which are not adjacent; sort the file by id"
