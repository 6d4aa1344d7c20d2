from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data import tables
from data.tables import DataError, read_table, write_table
from storage.durable import DiskError

CHAT = [{"role": "user", "content": "问"}, {"role": "assistant", "content": "答"}]


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def test_parquet_and_jsonl_read_as_the_same_table(tmp_path: Path) -> None:
    rows = [{"messages": CHAT, "task": "qa"}, {"messages": CHAT[:1], "task": "ner"}]
    table = pa.Table.from_pylist(rows, schema=tables.SFT)
    write_table(table, tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet", tables.SFT).equals(table)
    assert read_table(jsonl(tmp_path / "a.jsonl", *rows), tables.SFT).equals(table)


def test_paths_are_concatenated_in_order(tmp_path: Path) -> None:
    files = [jsonl(tmp_path / f"{name}.jsonl", {"text": name}) for name in "ba"]
    assert read_table(files, tables.PRETRAIN).column("text").to_pylist() == ["b", "a"]


def test_wider_types_are_narrowed(tmp_path: Path) -> None:
    wide = pa.table(
        {
            "question": pa.array(["q"], pa.large_string()),
            "options": pa.array([["a", "b"]], pa.large_list(pa.large_string())),
            "answer": pa.array([1], pa.int64()),
            "subject": ["s"],
        }
    )
    pq.write_table(wide, tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet", tables.CHOICE).schema == tables.CHOICE


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": CHAT}, r"a\.jsonl:2: column 'task' is missing"),
        ({"messages": CHAT, "task": "qa", "x": 1}, r"a\.jsonl:2: unknown column 'x'"),
        ({"messages": CHAT, "task": None}, r"a\.jsonl:2: task: holds a null; it must be a string"),
        ({"messages": "hi", "task": "qa"}, r"a\.jsonl:2: messages: holds a string; it must be a list"),
        ({"messages": [CHAT[0], {"role": "user"}], "task": "qa"}, r"a\.jsonl:2: messages\[1\]: holds \['role'\]"),
        ({"messages": [{"role": 1, "content": ""}], "task": "qa"}, r"messages\[0\]\.role: holds a number"),
        ([1], r"a\.jsonl:2: holds a list; write one JSON object a line"),
    ],
)
def test_bad_jsonl_names_line_and_field(tmp_path: Path, row: object, message: str) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"messages": CHAT, "task": "qa"}, row)
    with pytest.raises(DataError, match=message):
        read_table(path, tables.SFT)


@pytest.mark.parametrize("answer", [True, 1.5, "1", 2**31])
def test_jsonl_integers_are_32_bit_whole_numbers(tmp_path: Path, answer: object) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"question": "q", "options": ["a"], "answer": answer, "subject": "s"})
    with pytest.raises(DataError, match=r":1: answer: .* whole number"):
        read_table(path, tables.CHOICE)


def test_broken_json_and_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": \n', "utf-8")
    with pytest.raises(DataError, match=r"a\.jsonl:2: not JSON.*write one JSON object a line"):
        read_table(tmp_path / "a.jsonl", tables.PRETRAIN)
    (tmp_path / "b.jsonl").write_bytes('{"text": "病"}'.encode("utf-16"))
    with pytest.raises(DataError, match=r"b\.jsonl: is UTF-16"):
        read_table(tmp_path / "b.jsonl", tables.PRETRAIN)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"txt": ["a"]}, "column 'text' is missing"),
        ({"text": [1]}, "column 'text' has type int64; it must be string"),
        ({"text": ["a", None]}, "row 1: column 'text' holds a null"),
        ({"text": ["a"], "id": [1]}, "unknown column 'id'"),
        ({"text": pa.array([], pa.string())}, "no rows"),
    ],
)
def test_bad_parquet(tmp_path: Path, columns: dict[str, object], message: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "a.parquet", tables.PRETRAIN)


def test_a_column_that_may_be_lacking_is_filled_and_still_checked_where_it_is(tmp_path: Path) -> None:
    wide, bare = [{"messages": CHAT, "task": "qa"}], [{"messages": CHAT}]
    paths = [jsonl(tmp_path / "a.jsonl", *wide), jsonl(tmp_path / "b.jsonl", *bare)]
    pq.write_table(pa.Table.from_pylist(bare, tables.SFT.remove(1)), tmp_path / "c.parquet")
    read = read_table([*paths, tmp_path / "c.parquet"], tables.SFT, may_lack=tables.MAY_LACK)
    assert read.schema == tables.SFT
    assert read["task"].to_pylist() == ["qa", "", ""]
    with pytest.raises(DataError, match="task: holds a number; it must be a string"):
        read_table(jsonl(tmp_path / "d.jsonl", {"messages": CHAT, "task": 1}), tables.SFT, may_lack=tables.MAY_LACK)
    with pytest.raises(DataError, match="column 'messages' is missing"):
        read_table(jsonl(tmp_path / "e.jsonl", {"task": "qa"}), tables.SFT, may_lack=tables.MAY_LACK)


def test_margins_are_numbers(tmp_path: Path) -> None:
    def read(margin: object) -> float:
        row = {"prompt": CHAT[:1], "chosen": "a", "rejected": "b", "margin": margin}
        path = jsonl(tmp_path / "a.jsonl", row)
        return read_table(path, tables.PREFERENCE_WITH_MARGIN, may_lack=tables.MAY_LACK)["margin"][0].as_py()

    assert [read(2), read(0.5)] == [2.0, 0.5]
    for wrong in ("1", True, None):
        with pytest.raises(DataError, match=r":1: margin: .* finite number"):
            read(wrong)


def test_a_folder_is_its_parquet_files_in_order(tmp_path: Path) -> None:
    for name in ("part-00001", "part-00000"):
        pq.write_table(pa.table({"text": [name]}), tmp_path / f"{name}.parquet")
    (tmp_path / "report.json").write_text("{}")
    assert read_table(tmp_path, tables.PRETRAIN)["text"].to_pylist() == ["part-00000", "part-00001"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: a folder without .parquet files"):
        read_table(tmp_path / "empty", tables.PRETRAIN)


def test_nested_null_names_its_row(tmp_path: Path) -> None:
    rows = [{"prompt": CHAT[:1]}, {"prompt": [*CHAT, {"role": "user", "content": None}]}]
    pq.write_table(pa.Table.from_pylist(rows, schema=tables.PROMPTS), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="row 1: column 'prompt' holds a null"):
        read_table(tmp_path / "a.parquet", tables.PROMPTS)


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match=r"a\.parquet: not readable as Parquet"):
        read_table(tmp_path / "a.parquet", tables.PRETRAIN)
    with pytest.raises(DataError, match="no such file"):
        read_table(tmp_path / "none.parquet", tables.PRETRAIN)
    (tmp_path / "a.csv").write_text("text\na\n")
    with pytest.raises(DataError, match="unknown file type"):
        read_table(tmp_path / "a.csv", tables.PRETRAIN)
    with pytest.raises(DataError, match="no data files given"):
        read_table([], tables.PRETRAIN)


def test_a_failed_write_leaves_the_old_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    write_table(pa.table({"text": ["old"]}), path)

    def fail(source: str, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(DiskError, match="disk full"):
        write_table(pa.table({"text": ["new"]}), path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.parquet"]
    assert read_table(path, tables.PRETRAIN).column("text").to_pylist() == ["old"]


def test_tables_are_written_as_parquet_only(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="end in .parquet"):
        write_table(pa.table({"text": ["a"]}), tmp_path / "a.jsonl")
