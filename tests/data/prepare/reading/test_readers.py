"""Every format gives its records with their lines; damage costs what it is in and nothing else."""

from __future__ import annotations

import gzip
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.files import json_list
from data.prepare.options import Options
from data.prepare.reading.readers import read
from data.prepare.reading.sources import describe, find_files, pieces_of
from data.tables import DataError

RECORDS = [{"text": f"第{n}号病人头痛，\n建议“多休息”。"} for n in range(50)]
JSONL = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in RECORDS).encode()
PLAIN = "头痛三天，加重一天。\n既往体健，无药物过敏史。\n"


def records(found):
    return [one.record for one in found if not one.bad]


def bad(found):
    return [(one.line, one.bad) for one in found if one.bad]


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [("utf-8", b""), ("utf-8", b"\xef\xbb\xbf"), ("gb18030", b""), ("gb18030", b"\x84\x31\x95\x33")],
)
def test_text_is_read_in_the_encoding_it_is_written_in(found, encoding, mark):
    got = found("a.txt", mark + PLAIN.encode(encoding), text_unit="line")
    assert records(got) == [{"text": line} for line in PLAIN.splitlines()]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_other_encodings_are_refused_by_name(found, encoding):
    ((line, reason),) = bad(found("a.txt", PLAIN.encode(encoding)))
    assert (line, "UTF-16" in reason) == (1, True)


def test_a_line_in_another_encoding_is_bad_and_the_others_are_read(found):
    lines = JSONL.splitlines(keepends=True)
    lines[7] = lines[7].decode().encode("gb18030")
    got = found("a.jsonl", b"".join(lines))
    assert records(got) == RECORDS[:7] + RECORDS[8:]
    assert [line for line, _ in bad(got)] == [8]


def test_units_of_text_files(found):
    text = "甲一\n甲二\n\n\n乙一\n".encode()
    assert records(found("a.txt", text)) == [{"text": "甲一\n甲二\n\n\n乙一"}]
    got = records(found("a.txt", text, text_unit="paragraph"))
    assert [record["text"].strip() for record in got] == ["甲一\n甲二", "乙一"]
    assert records(found("a.txt", text, max_chars=4, min_chars=1)) == [{"text": "甲一\n甲二"}, {"text": "\n\n乙一"}]


def test_classics_fall_into_sections(found):
    text = "<篇名>本草\r\n书名：本草\r\n\r\n<目录>玉石\r\r\n\n<篇名>丹砂\r\n内容：味甘。\r\n<目录>玉石\r\n<篇名>云母\r\n内容：味平。\r\n"
    got = records(found("a.txt", text.encode("gb18030")))
    assert [record["text"].split("\n")[0] for record in got] == ["<篇名>本草", "<目录>玉石", "<目录>玉石"]
    assert "丹砂" in got[1]["text"]
    assert "云母" not in got[1]["text"]


def test_formats_agree(found, tmp_path):
    assert records(found("a.jsonl", JSONL)) == RECORDS
    assert records(found("a.json", json.dumps(RECORDS, ensure_ascii=False, indent=2).encode())) == RECORDS
    assert records(found("a.json", JSONL)) == RECORDS
    assert records(found("a.jsonl.gz", gzip.compress(JSONL))) == RECORDS
    assert records(found("a.jsonl.zst", pa.Codec("zstd").compress(JSONL, asbytes=True))) == RECORDS
    cells = "text\n" + "".join('"{}"\n'.format(record["text"]) for record in RECORDS)
    assert records(found("a.csv", cells.encode())) == RECORDS
    assert records(found("a.tsv", cells.encode("gb18030"))) == RECORDS
    pq.write_table(pa.Table.from_pylist(RECORDS), tmp_path / "b.parquet", row_group_size=7)
    assert records(found("b.parquet", (tmp_path / "b.parquet").read_bytes())) == RECORDS


def test_a_saved_dataset_is_read_in_its_order(tmp_path):
    from datasets import Dataset, DatasetDict

    DatasetDict({"train": Dataset.from_list(RECORDS)}).save_to_disk(tmp_path / "saved", num_shards={"train": 3})
    files, left_out = find_files([str(tmp_path / "saved")])
    assert len(files) == 3
    assert all(name.endswith("dataset_info.json") for name in left_out)
    got = [one for file in files for piece in pieces_of(describe(file)) for one in read(piece, Options("text"))]
    assert records(got) == RECORDS


def test_pieces_of_a_file_give_its_records_once(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(JSONL)
    pieces = pieces_of(describe(str(path)), piece_bytes=700)
    assert len(pieces) > 3
    assert records([one for piece in pieces for one in read(piece, Options("text"))]) == RECORDS


@pytest.mark.parametrize("chunk", [5, 37, 4096])
def test_a_json_list_is_read_in_chunks_of_any_size(found, monkeypatch, chunk):
    monkeypatch.setattr(json_list, "CHUNK", chunk)
    monkeypatch.setattr("data.files.lines.CHUNK", chunk)
    values = [*RECORDS, 12345678, {"text": "x" * 5000}]
    got = found("a.json", json.dumps(values, ensure_ascii=False, indent=1).encode())
    assert records(got) == values
    assert got[1].line == 5


def test_a_broken_element_costs_itself(found):
    text = json.dumps(RECORDS, ensure_ascii=False)
    broken = text.replace('{"text": "第20号', '{"text" "第20号')
    got = found("a.json", broken.encode())
    assert records(got) == RECORDS[:20] + RECORDS[21:]
    assert len(bad(got)) == 1


def test_a_cut_off_list_gives_what_is_whole(found):
    got = found("a.json", json.dumps(RECORDS, ensure_ascii=False).encode()[:-20])
    assert records(got) == RECORDS[:-1]
    assert len(bad(got)) == 1


@pytest.mark.parametrize(("ending", "least"), [(".gz", 280), (".zst", 180)])  # zstd has blocks of 128 KiB
def test_cut_off_compressed_data_gives_what_is_whole(found, ending, least):
    rng = random.Random(1)
    lines = [json.dumps({"text": "".join(rng.choices("头痛发热咳嗽乏力", k=100))}) for _ in range(400)]
    content = "\n".join(lines).encode()
    packed = gzip.compress(content) if ending == ".gz" else pa.Codec("zstd").compress(content, asbytes=True)
    got = found(f"a.jsonl{ending}", packed[: len(packed) * 3 // 4])
    assert len(records(got)) > least
    assert records(got) == [json.loads(line) for line in lines[: len(records(got))]]
    assert len(bad(got)) == 1
    assert bad(got)[0][0] == len(records(got)) + 1


def test_half_a_line_a_long_line_and_an_empty_file(found):
    got = found(
        "a.jsonl",
        b'{"text": "a"}\n{"text": "b\n{"text": "' + b"c" * 5000 + b'"}\n\n{"text": "d"}\n[[[',
        max_row_bytes=1000,
    )
    assert records(got) == [{"text": "a"}, {"text": "d"}]
    assert [line for line, _ in bad(got)] == [2, 3, 6]
    assert "1000 bytes" in bad(got)[1][1]
    assert bad(found("b.jsonl", b"")) == [(1, "the file is empty; leave it out")]
    assert "nested too deeply" in bad(found("c.jsonl", b"[" * 100_000))[0][1]


def test_a_stray_quote_costs_its_own_line(found):
    rows = ["question,answer", "a,b", 'c,"d', "e,f", '"g\nh",i', "j,k,l", "m,n"]
    got = found("a.csv", "\n".join(rows).encode())
    assert records(got) == [
        {"question": "a", "answer": "b"},
        {"question": "e", "answer": "f"},
        {"question": "g\nh", "answer": "i"},
        {"question": "m", "answer": "n"},
    ]
    assert [line for line, _ in bad(got)] == [3, 7]


def test_dialogues_have_a_turn_a_speaker(found):
    text = (
        "id\t1\tdepartment\t内科\nP\t头痛\t1\nD\t多久了？\t0\nD\t发热吗？\t0\nSUM1\t头痛\n\nP\t咳嗽\t1\nD\t多喝水\t0\n"
    )
    assert records(found("a.dialog", text.encode())) == [
        {"messages": [{"role": "user", "content": "头痛"}, {"role": "assistant", "content": "多久了？\n发热吗？"}]},
        {"messages": [{"role": "user", "content": "咳嗽"}, {"role": "assistant", "content": "多喝水"}]},
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.jsonl.gz", "a.txt", "a.arrow"])
def test_corrupted_files_never_crash_and_lose_no_line_before(found, tmp_path, name):
    content = {
        "a.json": json.dumps(RECORDS).encode(),
        "a.csv": b"text\n" + b"abc\n" * 60,
        "a.jsonl.gz": gzip.compress(JSONL),
    }.get(name, JSONL)
    if name == "a.parquet":
        pq.write_table(pa.Table.from_pylist(RECORDS), tmp_path / name)
        content = (tmp_path / name).read_bytes()
    if name == "a.arrow":
        with pa.ipc.new_stream(tmp_path / name, pa.Table.from_pylist(RECORDS).schema) as writer:
            writer.write_table(pa.Table.from_pylist(RECORDS))
        content = (tmp_path / name).read_bytes()
    rng = random.Random(name)
    for _ in range(30):
        place, kind = rng.randrange(len(content)), rng.choice(["flip", "cut", "drop", "zero"])
        changed = {
            "flip": content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :],
            "cut": content[:place],
            "drop": content[:place] + content[place + rng.randrange(1, 9) :],
            "zero": content[:place] + b"\0" + content[place + 1 :],
        }[kind]
        got = found(name, changed)
        if name == "a.jsonl" and kind != "zero":
            whole = changed.count(b"\n")
            assert len(got) >= whole - 1
            assert sum(record in RECORDS for record in records(got)) >= content[:place].count(b"\n")


def test_inputs_are_found_sorted_and_once(tmp_path):
    for name in ("b.jsonl", "a/c.txt", "a/.hidden.txt", "a/readme.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    files, left_out = find_files([str(tmp_path), str(tmp_path / "*.jsonl")])
    assert files == [str(tmp_path / "a/c.txt"), str(tmp_path / "b.jsonl")]
    assert left_out == [str(tmp_path / "a/readme.md")]
    with pytest.raises(DataError, match="there is no such file"):
        find_files([str(tmp_path / "none*")])
    with pytest.raises(DataError, match="unknown file type"):
        find_files([str(tmp_path / "a/readme.md")])
    (tmp_path / "a/table.xls").write_bytes(b"PK")
    with pytest.raises(DataError, match="is a spreadsheet of another kind than .xlsx; save it as .xlsx or .csv"):
        find_files([str(tmp_path / "a/table.xls")])
