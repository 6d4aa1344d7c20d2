"""Files that are one JSON object: its records are found, and what is unclear is refused."""

from __future__ import annotations

import json

import pytest

from data.files.lines import Unreadable
from data.prepare.reading.json_object import unwrapped

RECORDS = [{"question": f"第{n}例头痛怎么办？", "answer": "多休息。"} for n in range(5)]


def records(found):
    return [one.record for one in found if not one.bad]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("name", ["data", "train", "RECORDS"])
def test_a_list_under_a_key(found, indent, name):
    content = json.dumps({"version": "1", name: RECORDS}, ensure_ascii=False, indent=indent).encode()
    got = found("a.json", content)
    assert records(got) == RECORDS
    assert [one.line for one in got] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("indent", [None, 1])
def test_a_record_under_each_key_has_it_as_its_id(found, indent):
    dialogues = {str(n): {"self_report": "头晕", "dialogue": []} for n in range(3)}
    got = found("a.json", json.dumps(dialogues, ensure_ascii=False, indent=indent).encode())
    assert records(got) == [{"id": name, **one} for name, one in dialogues.items()]


def test_one_record_and_json_lines_stay_what_they_are(found):
    chat = {"data": ["问：头晕", "答：测血压"]}
    turns = {"conversations": [{"from": "human", "value": "问"}]}
    for record in (chat, turns, RECORDS[0]):
        assert records(found("a.json", json.dumps(record, indent=1).encode())) == [record]
        assert records(found("a.json", b"\n".join([json.dumps(record).encode()] * 2))) == [record] * 2
    got = found("a.json", b'{"text": "a"\n{"text": "b"}\n')
    assert (records(got), [one.line for one in got if one.bad]) == ([{"text": "b"}], [1])


def test_what_is_unclear_or_too_long_is_refused(found):
    with pytest.raises(Unreadable, match=r"several lists of records \(data, train\)"):
        unwrapped({"train": RECORDS, "data": RECORDS})
    (bad,) = found("a.json", json.dumps({"data": RECORDS}, indent=1).encode(), max_row_bytes=100)
    assert "--max-row-bytes" in bad.bad
    with pytest.raises(Unreadable, match=r"several lists of records \(train, test\)"):
        unwrapped({"train": RECORDS, "test": RECORDS})


def test_columns_are_rows():
    rows = [{"question": "甲", "answer": "乙"}, {"question": "丙", "answer": "丁"}]
    assert unwrapped({"question": {"0": "甲", "1": "丙"}, "answer": {"0": "乙", "1": "丁"}}) == rows
    assert unwrapped({"question": ["甲", "丙"], "answer": ["乙", "丁"]}) == rows
    for record in ({"questions": ["甲", "丙"], "answers": ["乙"]}, {"id": "1", "data": ["甲", "乙"]}):
        assert unwrapped(record) == [record]
