"""Whole preparations: what lies in the folder, that it is the same every time, and what happens to what is bad."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from configs.errors import ConfigError, RunError
from data.prepare.__main__ import main
from data.prepare.options import Options
from data.prepare.pipeline import piece, run
from data.prepare.pipeline.pools import Here
from data.prepare.pipeline.run import prepare
from data.prepare.reading import sources
from data.tables import PREFERENCE_WITH_MARGIN, PRETRAIN, PROMPTS, SFT, DataError, read_table

CORPORA = Path(os.environ.get("CHIMED_CORPORA", Path(__file__).parents[5] / "shared/corpora"))
WORDS = "头痛发热咳嗽乏力胸闷腹泻心悸失眠纳差便秘盗汗自汗"


def distinct(seed):
    return "病例：" + "".join(random.Random(seed).choices(WORDS, k=50))


def write(path, records):
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records), "utf-8")
    return path


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_tables_are_those_of_the_trainers(tmp_path, prepared):
    chats = write(tmp_path / "a.jsonl", [{"question": distinct(n), "answer": distinct(n + 100)} for n in range(9)])
    pairs = write(tmp_path / "b.jsonl", [{"prompt": "问", "chosen": distinct(n), "rejected": "坏"} for n in range(5)])
    for kind, path, schema in (
        ("chat", chats, SFT),
        ("text", chats, PRETRAIN),
        ("prompts", chats, PROMPTS),
        ("preference", pairs, PREFERENCE_WITH_MARGIN),
    ):
        outcome, rows, rejects = prepared(kind, path)
        table = read_table(tmp_path / "out" / "part-00000.parquet", schema)
        assert table.num_rows == len(rows) == outcome.report["rows"] == (5 if kind == "preference" else 9)
        assert rejects == []
        assert outcome.manifest["schema"] == {field.name: str(field.type) for field in schema}


@pytest.mark.slow
def test_a_dataset_of_the_hub_is_prepared_like_its_files(hub, tmp_path, prepared):
    (tmp_path / "repository").mkdir()
    chats = [{"question": distinct(n), "answer": distinct(n + 100)} for n in range(9)]
    (tmp_path / "repository" / "train.json").write_text(json.dumps(chats, ensure_ascii=False), "utf-8")
    hub.commit("datasets", "org/name", tmp_path / "repository")
    _, rows, _ = prepared("chat", "hf://datasets/org/name/train")
    assert [row["messages"][1]["content"] for row in rows] == [chat["answer"] for chat in chats]
    with pytest.raises(ConfigError, match="hf://datasets/org/name/test: has no test; it has train"):
        prepared("chat", "hf://datasets/org/name/test")


def test_every_step_counts_what_it_takes(tmp_path, prepared):
    item = "下列关于治疗方法的说法中正确的一项是什么"
    exam = write(tmp_path / "exam.jsonl", [{"question": item}])
    one = "".join(map(distinct, (1, 3, 4)))
    texts = [distinct(0), one, one, one + "。", "短", "好" * 200, "题目：" + item, distinct(2) + "电话13812345678", ""]
    path = write(tmp_path / "a.jsonl", [{"text": text} for text in texts])
    outcome, rows, rejects = prepared("text", path, decontaminate=(exam,))
    assert [row["text"] for row in rows] == [texts[0], texts[1], distinct(2) + "电话【电话】"]
    steps = {3: "exact", 4: "near", 5: "length", 6: "repetition", 7: "decontamination", 9: "bad"}
    assert {reject["line"]: reject["step"] for reject in rejects} == steps
    assert rejects[0]["reason"] == f"repeats {path}:2"
    report = outcome.report
    assert report["removed"] == {"decontamination": 1, "exact": 1, "length": 1, "near": 1, "repetition": 1}
    assert (report["records"], report["rows"], report["masked"]) == (9, 3, {"phone": 1})
    assert sum(report["lengths"].values()) == 3
    assert report["characters"] == sum(len(row["text"]) for row in rows)
    page = (tmp_path / "out/_report.html").read_text("utf-8")
    assert "Bad records" in page
    assert f"repeats {path}:2" in page


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_in_a_browser(tmp_path, prepared, chromium, width, scheme):
    from benchmarks.pictures.browser import Page

    rows = [{"text": distinct(n)} for n in range(9)] + [{"text": "短"}, {"x": 1}]
    prepared("text", write(tmp_path / f"{'a-long-name' * 9}.jsonl", rows))
    page = Page(chromium, width, 900, "en-US", scheme)
    page.show(tmp_path / "out" / "_report.html")
    assert page.overflow() == 0
    assert page.faint() == []
    assert page.complaints() == []
    page.close()


def test_steps_are_switched_off(tmp_path, prepared):
    texts = [
        distinct(1),
        distinct(1),
        distinct(1) + "。",
        "短",
        "好" * 200,
        "电话13812345678\u3000ＣＴ<br>头痛头痛头痛",
    ]
    path = write(tmp_path / "a.jsonl", [{"text": text} for text in texts])
    outcome, rows, _ = prepared(
        "text", path, skip=("unicode", "markup", "privacy", "length", "repetition", "exact", "near")
    )
    assert [row["text"] for row in rows] == texts
    assert outcome.report["removed"] == outcome.report["changed"] == {}


def test_long_documents_are_cut_and_long_chats_removed(tmp_path, prepared):
    lines = [distinct(n) for n in range(30)]
    path = tmp_path / "a.txt"
    path.write_text("\n".join(lines), "utf-8")
    _, rows, _ = prepared("text", path, max_chars=300)
    assert len(rows) > 5
    assert "\n".join(row["text"] for row in rows).split("\n") == lines
    chat = write(
        tmp_path / "b.jsonl", [{"question": "问", "answer": "\n".join(lines)}, {"question": "问", "answer": "答"}]
    )
    outcome, rows, _ = prepared("chat", chat, max_chars=300)
    assert len(rows) == outcome.report["removed"]["length"] == 1


def test_bad_rows_are_listed_or_end_the_run(tmp_path, prepared, monkeypatch):
    monkeypatch.setattr(sources.pieces_of, "__defaults__", (400,))
    records = [{"text": distinct(n)} for n in range(30)]
    path = write(tmp_path / "a.jsonl", records)
    lines = path.read_text("utf-8").splitlines(keepends=True)
    lines[25] = '{"text": "头\n'
    path.write_text("".join(lines), "utf-8")
    outcome, rows, rejects = prepared("text", path)
    assert len(rows) == 29
    assert [(one["file"], one["line"], one["step"]) for one in rejects] == [(str(path), 26, "bad")]
    assert outcome.report["bad"] == {"cannot be read": 1}
    (tmp_path / "out").rename(tmp_path / "kept")
    with pytest.raises(DataError, match=rf"{path}:26: not JSON: .*--on-bad skip"):
        prepared("text", path, on_bad="fail")
    assert sorted(found.name for found in tmp_path.iterdir()) == ["a.jsonl", "kept"]


def test_the_same_input_gives_the_same_bytes_and_is_not_done_again(tmp_path, monkeypatch):
    monkeypatch.setattr(sources.pieces_of, "__defaults__", (400,))
    monkeypatch.setattr(piece, "FLUSH", 100)
    path = write(tmp_path / "a.jsonl", [{"text": distinct(n % 40)} for n in range(60)])
    options = Options("text", shard_bytes=1500)
    outcome = prepare([str(path)], tmp_path / "one", options, Here())
    assert len(outcome.manifest["shards"]) > 2
    assert sum(shard["rows"] for shard in outcome.manifest["shards"]) == 40
    prepare([str(path)], tmp_path / "two", options, Here())
    assert content(tmp_path / "one") == content(tmp_path / "two")
    before = (tmp_path / "one/part-00000.parquet").stat()
    again = prepare([str(path)], tmp_path / "one", options, Here())
    assert (again.made, again.manifest, again.report) == (False, outcome.manifest, outcome.report)
    assert (tmp_path / "one/part-00000.parquet").stat() == before


def test_changed_inputs_options_and_shards_are_done_again(tmp_path, prepared):
    path = write(tmp_path / "a.jsonl", [{"text": distinct(n)} for n in range(9)])
    assert prepared("text", path)[0].replaced == ""
    assert prepared("text", path, ngram=20)[0].replaced == "options"
    write(path, [{"text": distinct(n)} for n in range(8)])
    outcome, rows, _ = prepared("text", path, ngram=20)
    assert (outcome.replaced, len(rows)) == ("sources", 8)
    (tmp_path / "out/part-00000.parquet").write_bytes(b"")
    assert prepared("text", path, ngram=20)[0].replaced == "part-00000.parquet"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["a.jsonl", "out"]


def test_nothing_is_left_of_a_run_that_ends_early(tmp_path, prepared, monkeypatch):
    path = write(tmp_path / "a.jsonl", [{"text": distinct(n)} for n in range(9)])

    def full(shard):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run, "write_shard", full)
    with pytest.raises(RunError, match="No space left on device"):
        prepared("text", path)
    assert [found.name for found in tmp_path.iterdir()] == ["a.jsonl"]
    with pytest.raises(DataError, match="no row is left of 9 records: 9 "):
        prepared("chat", path)
    assert [found.name for found in (tmp_path / "out").iterdir()] == ["_rejects.jsonl"]
    (tmp_path / "out/mine").write_text("x")
    with pytest.raises(DataError, match="holds no prepared data"):
        prepared("text", path)


def test_the_folder_is_one_table_to_pyarrow(tmp_path, prepared):
    """Files that begin with an underscore are no part of it; pandas, Spark, and Datasets skip them too."""
    path = write(tmp_path / "a.jsonl", [{"text": distinct(n)} for n in range(5)] + [{"other": 1}])
    more = write(tmp_path / "b.jsonl", [{"text": distinct(n)} for n in range(5, 9)])
    prepared("text", path, more, shard_bytes=1)
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert names[:4] == ["_manifest.json", "_rejects.jsonl", "_report.html", "_report.json"]
    assert names[4:] == ["part-00000.parquet", "part-00001.parquet"]
    table = pq.read_table(tmp_path / "out")
    assert table.schema.names == ["text"]
    assert sorted(table.column("text").to_pylist()) == sorted(distinct(n) for n in range(9))
    assert [Path(name).name for name in sources.find_files([str(tmp_path / "out")])[0]] == names[4:]


def test_the_command_line(tmp_path, capsys):
    path = write(tmp_path / "a.jsonl", [{"q": distinct(n), "a": distinct(n + 50)} for n in range(9)])
    line = [
        "--input",
        str(path),
        "--kind",
        "chat",
        "--out",
        str(tmp_path / "out"),
        "--map",
        "question=q",
        "--map",
        "answer=a",
    ]
    assert main(line) == 0
    assert "9 records in, 9 rows out" in capsys.readouterr().out
    assert main(line) == 0
    assert "already prepared from these inputs, nothing changed" in capsys.readouterr().out
    with pytest.raises(SystemExit) as error:
        main([*line, "--map", "nonsense=q"])
    assert error.value.code == 2
    assert "error: --map nonsense=q: give FIELD=COLUMN" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [{"kind": "tables"}, {"kind": "text", "max_chars": 0}, {"kind": "text", "skip": ("x",)}]
)
def test_options_that_cannot_be(wrong):
    with pytest.raises(ConfigError):
        Options(**wrong)


@pytest.mark.slow
@pytest.mark.skipif(not CORPORA.is_dir(), reason="there is no folder of real corpora; name one with CHIMED_CORPORA")
@pytest.mark.parametrize(
    ("kind", "name", "records", "bad"),
    [
        ("text", "tcm_classics/000*.txt", 379, 0),
        ("chat", "huatuo26m_qa.json", 6000, 0),
        ("chat", "cmtmedqa_multiturn.json", 1144, 0),
        ("chat", "medicalgpt_sft_1k.jsonl", 1000, 0),
        ("chat", "bentsao_instructions.jsonl", 8658, 0),
        ("chat", "hetmc_train.dialog", 360, 0),
        ("chat", "cmmlu/*.csv", 1201, 0),
        ("preference", "medicalgpt_reward_100.jsonl", 100, 0),
        ("preference", "general_preference_500.jsonl", 500, 0),
    ],
)
def test_real_corpora_go_in(prepared, kind, name, records, bad):
    outcome, rows, rejects = prepared(kind, CORPORA / name, skip=("near", "repetition", "privacy"))
    assert outcome.report["records"] == records
    assert sum(outcome.report["bad"].values()) == bad
    assert len(rows) + len(rejects) == records
