"""Every strict reader gives what was written in every encoding, and names file and line of what is damaged."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from configs.errors import ConfigError, DataError
from data import tables
from data.files.records import csv_head, csv_rows, json_lines, json_records, text_lines, whole_text
from data.tables import read_table
from evals.result_cache import ResultCache
from evals.tasks.ccks import read_ccks
from evals.tasks.dialogue.readers import read_dialogues
from evals.tasks.exam.readers import read_exam
from evals.tasks.safety import read_safety
from evals.tasks.scales.schema import read_scale
from serve.keys import read_keys

BOUNDED = settings(max_examples=40, deadline=None, database=None, derandomize=True)

# What str.splitlines() ends a line at and JSON does not, and what an encoding may trip over.
ODD = "\u2028\u2029\u0085\x0b\x0c\x1c\u3000\ufeff\\\"',\t{}[]头痛，。𠮷é😷"
CHARACTERS = st.one_of(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), st.sampled_from(ODD))
TEXTS = st.text(CHARACTERS, max_size=30).map(lambda text: f"头痛三天{text}怎么办")
"""A few characters beyond any doubt: two bytes alone may be a character in UTF-8 as well as in GB18030."""
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "gb18030"])
ENDS = st.sampled_from(["\n", "\r\n"])


def written(name: str, content: bytes, read: Callable[[Path], Any]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        return read(path)


def json_text(rows: list[Any], end: str = "\n", **how: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False, **how) + end for row in rows)


# For each reader: a record that holds a text, and how the text is found in what is read.
def chat(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "好"}], "task": ""}


READERS: dict[str, tuple[str, Callable[[str], Any], Callable[[Path], list[str]]]] = {
    "table": (
        "a.jsonl",
        chat,
        lambda path: [m[0]["content"] for m in read_table(path, tables.SFT)["messages"].to_pylist()],
    ),
    "exam": (
        "a.jsonl",
        lambda text: {"question": "哪项", "options": {"A": text + "甲", "B": "乙"}, "answer": "B"},
        lambda path: [q.options[0].removesuffix("甲") for q in read_exam(path).questions],
    ),
    "safety": (
        "a.jsonl",
        lambda text: {"prompt": text, "want": "answer"},
        lambda path: [r.chat[0]["content"] for r in read_safety(path).requests],
    ),
    "ccks": (
        "a.json",
        lambda text: {"text": text, "entity_list": [{"type": "症状", "start": 0, "end": 2}]},
        lambda path: [row["text"] for row in read_ccks(path).rows],
    ),
    "dialogue": (
        "a.jsonl",
        lambda text: {"question": text, "answer": "休息"},
        lambda path: [own[0].chat[0]["content"] for own in read_dialogues(path).conversations],
    ),
}


@pytest.mark.parametrize("reader", READERS)
@BOUNDED
@given(st.lists(TEXTS, min_size=1, max_size=6), ENCODINGS, ENDS, st.booleans())
def test_every_reader_gives_what_was_written(
    reader: str, texts: list[str], encoding: str, end: str, blank: bool
) -> None:
    name, record, read = READERS[reader]
    content = ("\n" if blank else "") + json_text([record(text) for text in texts], end)
    assert written(name, content.encode(encoding), read) == texts


@BOUNDED
@given(st.lists(TEXTS, min_size=1, max_size=6), ENCODINGS, st.sampled_from([None, 1]))
def test_a_json_list_gives_what_was_written(texts: list[str], encoding: str, indent: int | None) -> None:
    _, record, read = READERS["ccks"]
    content = json.dumps([record(text) for text in texts], ensure_ascii=False, indent=indent)
    assert written("a.json", content.encode(encoding), read) == texts


@BOUNDED
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6), ENCODINGS, ENDS, st.booleans())
def test_csv_gives_what_was_written(rows: list[tuple[str, str]], encoding: str, end: str, quoted: bool) -> None:
    assume(quoted or not any(set('",') & set(cell) for row in rows for cell in row))
    sink = io.StringIO()
    quoting = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    csv.writer(sink, lineterminator=end, quoting=quoting).writerows([("题目", "解析"), *rows])
    content = sink.getvalue().encode(encoding)
    assert written("a.csv", content, csv_head) == ["题目", "解析"]
    assert written("a.csv", content, lambda path: [tuple(row.values()) for _, row in csv_rows(path)]) == rows


def test_a_quote_inside_a_cell_is_a_character_and_one_that_is_not_closed_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,5" 针\n2,"两\n行"\n3,乙\n', "utf-8")
    assert list(csv_rows(path)) == [
        (2, {"a": "1", "b": '5" 针'}),
        (3, {"a": "2", "b": "两\n行"}),
        (5, {"a": "3", "b": "乙"}),
    ]
    path.write_text('a,b\n1,甲\n2,"没有完\n3,乙\n', "utf-8")
    with pytest.raises(DataError, match=r"a.csv:3: a quote is not closed"):
        list(csv_rows(path))


@BOUNDED
@given(st.text(CHARACTERS | st.sampled_from("\n")), ENCODINGS, ENDS)
def test_whole_texts_are_those_written(text: str, encoding: str, end: str) -> None:
    assume("\n\ufeff" not in text and not text.startswith("\ufeff"))
    head = "头痛三天怎么办\n"
    content = (head + text).replace("\n", end).encode(encoding)
    assert written("a.txt", content, whole_text) == head + text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_keys_and_scales_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    key = "sk-0123456789abcdef"
    path = tmp_path / "keys"
    path.write_bytes(f"# 门诊\u2028的钥匙\n{key}\n".encode(encoding))
    assert len(read_keys(str(path))) == 1
    path.write_bytes(f"# 门诊\n{key}\n".encode("utf-16"))
    with pytest.raises(ConfigError, match="keys: is UTF-16"):
        read_keys(str(path))
    shipped = Path(__file__).resolve().parents[3] / "evals/tasks/scales/cami.yaml"
    path.write_bytes(shipped.read_text("utf-8").encode(encoding))
    assert read_scale(path) == read_scale(shipped)


GOOD = [record[1]("头痛三天，伴有发热，怎么办？") for record in READERS.values()]
DAMAGES: dict[str, bytes] = {
    "half a line": '{"question": "头'.encode(),
    "an unpaired surrogate": b'{"question": "\\ud83d", "answer": "\\ud83d", "text": "\\udc00"}',
    "an integer of 5,000 digits": b'{"x": ' + b"9" * 5000 + b"}",
    "nested deeply": b"[" * 100_000,
    "nested deeply and closed": b'{"x": ' + b"[" * 400 + b"]" * 400 + b"}",
    "a null byte": b'{"x": "\0"}',
    "another encoding": b'{"x": "\xff\xff"}',
    "a number": b"1",
    "a list": b'["x"]',
}


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("reader", [*READERS, "list"])
def test_damage_is_one_line_with_file_and_line(tmp_path: Path, reader: str, damage: str, encoding: str) -> None:
    name, record, read = READERS["ccks" if reader == "list" else reader]
    good = json.dumps(record("头痛三天，伴有发热，怎么办？"), ensure_ascii=False).encode(encoding)
    path = tmp_path / name
    lines = (
        [b"[" + good + b",", DAMAGES[damage] + b",", good + b"]"] if reader == "list" else [good, DAMAGES[damage], good]
    )
    path.write_bytes(b"\n".join(lines) + b"\n")
    if reader == "dialogue":  # what is no conversation stays in, and is named
        assert any(f.where.startswith(f"{name}:2") for f in read_dialogues(path).faults)
        return
    with pytest.raises(DataError) as told:
        read(path)
    assert f"{path}:2:" in str(told.value)
    assert len(str(told.value)) < 400


LARGE = ["9" * 25, "1" + "0" * 400, "1e999", "18446744073709551616"]


@pytest.mark.parametrize(
    ("field", "value", "fits"),
    [
        *(("margin", value, fits) for value, fits in zip(LARGE, (True, False, False, True), strict=True)),
        *(("more", value, fits) for value, fits in zip(LARGE, (False, False, True, False), strict=True)),
    ],
)
def test_a_number_fits_its_column_or_its_line_is_named(tmp_path: Path, field: str, value: str, fits: bool) -> None:
    """A margin is a 32-bit float; of a column that no stage reads, an integer has 64 bits, a float any value."""
    good = {"prompt": [{"role": "user", "content": "问"}], "chosen": "甲", "rejected": "乙", "margin": 1, "more": 1.5}
    rows = [json.dumps(good), json.dumps({**good, field: 77}).replace("77", value), json.dumps(good)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(rows), "utf-8")

    def read() -> Any:
        return read_table(path, tables.PREFERENCE_WITH_MARGIN, others=True, may_lack=tables.MAY_LACK)

    if fits:
        assert read().num_rows == 3
    else:
        with pytest.raises(DataError, match=r"a\.jsonl:2: "):
            read()


def test_what_is_no_text_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for content, said in (
        ('{"a": "头痛"}\n'.encode("utf-16"), "UTF-16"),
        ('{"a": "头痛"}\n'.encode("utf-16-le") * 20, "null bytes"),
        ('{"a": "头痛"}\n'.encode("utf-32"), "UTF-16 or UTF-32"),
    ):
        path.write_bytes(content)
        for read in (json_lines, json_records, text_lines, csv_rows):
            with pytest.raises(DataError, match=said):
                list(read(path))
    with pytest.raises(DataError, match=r"none.jsonl: cannot be read \(No such file"):
        list(json_lines(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match="cannot be read"):
        list(json_lines(tmp_path))


def test_a_ledger_keeps_any_text(tmp_path: Path) -> None:
    said = ["一\u2028二\u0085三\x0b", "\ud83d", "甲"]
    first = ResultCache(tmp_path / "l.jsonl").through(["a"], [[1], [2], ["\ud83d"]], lambda _: said)
    second = ResultCache(tmp_path / "l.jsonl").through(["a"], [[1], [2], ["\ud83d"]], lambda _: [])
    assert first == second == said


def test_a_key_given_twice_is_named(tmp_path: Path) -> None:
    row = '{"text": "甲", "meta": {"a": 1, "a": 2}}'
    (tmp_path / "x.jsonl").write_text(f"{{}}\n{row}\n", encoding="utf-8")
    (tmp_path / "x.json").write_text(f"[{{}},\n{row}]", encoding="utf-8")
    for name in ("x.jsonl", "x.json"):
        with pytest.raises(DataError, match=rf"{name}:2: .*the key 'a' is given twice in one object"):
            list(json_records(tmp_path / name))
