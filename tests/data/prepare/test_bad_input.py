"""Each kind of bad input: counted and listed with its line, and the run's end under `--on-bad fail`, naming file and line."""

from __future__ import annotations

import gzip
import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import RunError
from data.prepare.__main__ import main
from data.prepare.options import Options
from data.prepare.pipeline.pools import Here
from data.prepare.pipeline.run import prepare
from data.prepare.reading import sources
from data.prepare.reading.readers import read
from data.prepare.reading.sources import describe
from data.tables import DataError

GOOD = [{"question": f"第{n}例：头痛{n}天怎么办？", "answer": f"多休息{n * n}天。"} for n in range(4)]
CHOICE = {"Question": "心脏在", "A": "左", "B": "右", "C": "上", "D": "下"}


def lines(*records):
    return "".join((one if isinstance(one, str) else json.dumps(one, ensure_ascii=False)) + "\n" for one in records)


def chat(*turns):
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def pair(chosen, rejected):
    return {"prompt": "头痛怎么办", "chosen": chosen, "rejected": rejected}


PAIRS = [pair(f"好{n}", "坏") for n in range(4)]
CHATS = [chat(("user", f"问{n}"), ("assistant", "答")) for n in range(4)]

CASES = {
    "half a JSON line": ("chat", lines(*GOOD[:2], '{"question": "头痛', *GOOD[2:]), "not JSON: Unterminated string"),
    "a chat that the assistant begins": (
        "chat",
        lines(*CHATS[:2], chat(("assistant", "您好"), ("user", "问"), ("assistant", "答")), *CHATS[2:]),
        "turn 0: found the assistant's turn where the user's must be",
    ),
    "an empty turn": (
        "chat",
        lines(*CHATS[:2], chat(("user", " "), ("assistant", "答")), *CHATS[2:]),
        "turn 0 (user): the content is empty",
    ),
    "a turn without a text": (
        "chat",
        lines(*CHATS[:2], chat(("user", None), ("assistant", "答")), *CHATS[2:]),
        "messages[0] holds nothing; it must be a text",
    ),
    "an unknown role": (
        "chat",
        lines(*CHATS[:2], chat(("nurse", "问"), ("assistant", "答")), *CHATS[2:]),
        "the role is 'nurse'; use one of",
    ),
    "chosen equals rejected": ("preference", lines(*PAIRS[:2], pair("好", "好"), *PAIRS[2:]), "are the same text"),
    "an answer that is none of the options": (
        "chat",
        lines(*GOOD[:2], {**CHOICE, "Answer": "E"}, *GOOD[2:]),
        "the answer is 'E'; it must be one of the options A, B, C, D",
    ),
    "no answer": ("chat", lines(*GOOD[:2], {**CHOICE, "Answer": None}, *GOOD[2:]), "Answer holds nothing"),
    "a missing label": ("chat", lines(*GOOD[:2], CHOICE, *GOOD[2:]), "no known schema has its columns"),
    "a missing side": (
        "preference",
        lines(*PAIRS[:2], {"prompt": "问", "chosen": "好"}, *PAIRS[2:]),
        "is a chat without a rejected answer",
    ),
    "a column of the wrong type": (
        "chat",
        lines(*GOOD[:2], {"question": "问", "answer": 7}, *GOOD[2:]),
        "answer holds a number; it must be a text",
    ),
    "a reserved mark": (
        "chat",
        lines(*GOOD[:2], {"question": "[bot]:", "answer": "答"}, *GOOD[2:]),
        "the reserved mark",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_it_costs_its_own_row_or_ends_the_run(tmp_path, prepared, case):
    kind, content, reason = CASES[case]
    path = tmp_path / "a.jsonl"
    path.write_text(content, "utf-8")
    outcome, rows, rejects = prepared(kind, path, skip=("near",))
    assert [(one["file"], one["line"], one["step"]) for one in rejects] == [(str(path), 3, "bad")]
    assert reason in rejects[0]["reason"]
    assert len(rows) == 4
    assert (outcome.report["records"], outcome.report["rows"], sum(outcome.report["bad"].values())) == (5, 4, 1)
    with pytest.raises(DataError) as error:
        prepare([str(path)], tmp_path / "strict", Options(kind, skip=("near",), on_bad="fail"), Here())
    assert str(error.value).startswith(f"{path}:3: ")
    assert reason in str(error.value)
    assert str(error.value).endswith("repair it, or skip such rows with --on-bad skip")
    assert not (tmp_path / "strict").exists()


def test_records_that_share_an_id_are_kept_and_counted(tmp_path, prepared, capsys):
    (tmp_path / "a.jsonl").write_text(lines(*({**one, "id": 1} for one in (GOOD[0], GOOD[0], *GOOD[1:3]))), "utf-8")
    (tmp_path / "b.jsonl").write_text(lines({**GOOD[3], "id": "1"}, *({**one, "id": ""} for one in CHATS)), "utf-8")
    outcome, rows, rejects = prepared("chat", tmp_path / "*.jsonl", skip=("near",))
    assert len(rows) == 8
    assert [one["step"] for one in rejects] == ["exact"]  # the same record twice
    shared = outcome.report["shared_ids"]
    assert shared == {"rows": 2, "first": [f"{tmp_path}/a.jsonl:3", f"{tmp_path}/a.jsonl:1"]}
    assert main(["--input", str(tmp_path / "*.jsonl"), "--kind", "chat", "--out", str(tmp_path / "o")]) == 0
    said = (
        f"2 records repeat the id of an earlier record with different content (e.g. {' and '.join(shared['first'])}); "
    )
    assert said in capsys.readouterr().out


FILES = {
    "truncated gzip": ("a.jsonl.gz", gzip.compress(lines(*GOOD).encode())[:-30], "the compressed data is truncated"),
    "an empty file": ("a.jsonl", b"", "the file is empty"),
    "UTF-16": ("a.jsonl", lines(*GOOD).encode("utf-16"), "is UTF-16 or UTF-32 text; save it as UTF-8"),
    "no Parquet": ("a.parquet", b"PAR1" + bytes(100) + b"PAR1", "not readable as Parquet"),
    "no Arrow": ("a.arrow", bytes(100), "not readable as Arrow"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_cannot_be_read_is_named(tmp_path, prepared, case):
    name, content, reason = FILES[case]
    (tmp_path / name).write_bytes(content)
    (tmp_path / "good.jsonl").write_text(lines(*GOOD), "utf-8")
    _, rows, rejects = prepared("chat", tmp_path / name, tmp_path / "good.jsonl", skip=("near",))
    assert len(rows) == 4
    bad = [one for one in rejects if one["step"] == "bad"]
    assert [one["file"] for one in bad] == [str(tmp_path / name)]
    assert reason in bad[0]["reason"]
    with pytest.raises(DataError, match=f"{name}:{bad[0]['line']}: "):
        prepare([str(tmp_path / name)], tmp_path / "strict", Options("chat", on_bad="fail"), Here())


def test_a_line_in_another_encoding_is_named(tmp_path, prepared):
    content = [line.encode() for line in lines(*GOOD).splitlines(keepends=True)]
    content[2] = content[2].decode().encode("gb18030")
    (tmp_path / "a.jsonl").write_bytes(b"".join(content))
    _, rows, rejects = prepared("chat", tmp_path / "a.jsonl", skip=("near",))
    assert len(rows) == 3
    assert [one["line"] for one in rejects] == [3]
    assert "is not valid UTF-8, the encoding of the file" in rejects[0]["reason"]


def test_columns_of_a_table_have_one_type_each(tmp_path, prepared):
    table = pa.table({"question": pa.array([1, 2]), "answer": pa.array(["一", "二"])})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no row is left of 2 records: 2 question holds a number"):
        prepared("chat", tmp_path / "a.parquet")


def test_lines_of_later_pieces_are_counted_from_the_files_beginning(tmp_path, prepared, monkeypatch):
    monkeypatch.setattr(sources.pieces_of, "__defaults__", (150,))
    text = "".join(f"第{n}例：头痛{n}天，\n加重{n * n}天，\n\n\n多休息。\n" for n in range(20))
    place = text.index("第15例")
    (tmp_path / "a.txt").write_bytes(text[:place].encode() + "患者\n".encode("gb18030") + text[place:].encode())
    _, _, rejects = prepared("text", tmp_path / "a.txt", text_unit="line", min_chars=1, skip=("near", "exact"))
    assert [one["line"] for one in rejects] == [15 * 5 + 1]
    with pytest.raises(DataError, match=r"a\.txt:76: byte 0 of the line is not valid UTF-8"):
        prepared("text", tmp_path / "a.txt", text_unit="line", min_chars=1, on_bad="fail")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.dialog", "a.csv"])
def test_a_line_of_200_megabytes_is_passed_over_in_little_memory(tmp_path, name):
    head = b"question,answer\n" if name == "a.csv" else b""
    row = {"a.jsonl": b'{"text": "abc"}\n', "a.dialog": b"P\tabc\t1\nD\tde\t0\n\n"}.get(name, b"abc,de\n")
    with (tmp_path / name).open("wb") as file:
        file.write(head + row + b'P\t"')
        for _ in range(200):
            file.write(b"x" * 1_000_000)
        file.write(b'"\n\n' + row)
    tracemalloc.start()
    source = sources.Piece(describe(str(tmp_path / name)))
    found = sorted(read(source, Options("text", text_unit="line")), key=lambda one: one.line)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [bool(one.bad) for one in found] == [False, True, False]
    assert "the line has more than 64 MiB" in found[1].bad
    assert peak < 150_000_000


def test_a_full_disk_leaves_nothing(tmp_path, file_size_limit):
    path = tmp_path / "a.jsonl"
    path.write_text(lines(*({"text": f"{n * 7919 % 1000003}病例" * 30} for n in range(2000))), "utf-8")
    file_size_limit(20_000)
    with pytest.raises(RunError, match="cannot be written"):
        prepare([str(path)], tmp_path / "out", Options("text"), Here())
    assert [found.name for found in tmp_path.iterdir()] == ["a.jsonl"]
