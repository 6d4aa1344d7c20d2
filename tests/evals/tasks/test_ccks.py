from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from respondents import Oracle

from data.tables import DataError
from evals.models.subject import Settings
from evals.tasks.ccks import evaluate, read_ccks, sampled

CANCER = {"entity_type": "疾病和诊断", "entity_index": {"begin": 0, "end": 3}, "entity": "胃窦癌"}
RECORDS: list[dict[str, Any]] = [
    {"text": "胃窦癌术后，查血常规。", "entity_list": [CANCER, {"entity_type": "实验室检验", "start": 7, "end": 10}]},
    {"originalText": "未见异常。", "entities": []},
    {"originalText": "肝转移。", "entities": [{"label_type": "疾病和诊断", "start_pos": 0, "end_pos": 3}]},
]


def write(path: Path, records: Any, lines: bool = False) -> Path:
    rows = [json.dumps(record, ensure_ascii=False) for record in records]
    path.write_text("\n".join(rows) if lines else f"[{','.join(rows)}]", encoding="utf-8")
    return path


@pytest.mark.parametrize("lines", [True, False])
def test_lists_and_lines_in_both_spellings(tmp_path: Path, lines: bool) -> None:
    sentences = read_ccks(write(tmp_path / "ccks.json", RECORDS, lines))
    assert [[e["text"] for e in row["entities"]] for row in sentences.rows] == [["胃窦癌", "血常规"], [], ["肝转移"]]
    assert sentences.faults == []
    between = ":" if lines else ": record "
    assert sentences.wheres == [f"ccks.json{between}{number}" for number in (1, 2, 3)]


def test_scores_with_silence_and_chatter_counted(tmp_path: Path) -> None:
    sentences = read_ccks(write(tmp_path / "ccks.json", RECORDS))

    def says(prompt: str) -> str:
        text = prompt.rpartition("文本：")[2]
        return {"胃": "疾病和诊断：胃窦癌；实验室检验：血", "未": "无", "肝": ""}[text[0]]

    metrics = evaluate(Oracle(says), sentences, Settings(seed=0, limits={}))
    assert (metrics["right"], metrics["found"], metrics["gold"]) == (1, 2, 3)
    assert metrics["overlap"]["precision"] == 1.0
    assert metrics["overlap"]["recall"] == pytest.approx(2 / 3)
    assert (metrics["empty"], metrics["unparseable"], metrics["n"]) == (1, 1, 3)
    assert metrics["faults"]["counts"] == {"the model wrote nothing": 1}
    assert set(metrics["by_type"]) == {"疾病和诊断", "实验室检验"}


def test_a_lookup_model_gets_all_and_one_without_room_nothing(tmp_path: Path) -> None:
    sentences = read_ccks(write(tmp_path / "ccks.json", RECORDS))
    gold = {row["text"]: row["entities"] for row in sentences.rows}

    def says(prompt: str) -> str:
        return "\n".join(f"{e['type']}：{e['text']}" for e in gold[prompt.rpartition("文本：")[2]]) or "无"

    right = evaluate(Oracle(says), sentences, Settings(seed=0, limits={}))
    assert (right["f1"], right["overlap"]["f1"]) == (1.0, 1.0)
    none = evaluate(Oracle(says, longest=1), sentences, Settings(seed=0, limits={}))
    assert (none["f1"], none["faults"]["counts"]) == (0.0, {"longer than the context": 3})


def test_a_span_that_is_not_its_entity_is_named(tmp_path: Path) -> None:
    wrong = {**CANCER, "entity_index": {"begin": 1, "end": 4}}
    beyond = {**CANCER, "entity_index": {"begin": 9, "end": 99}}
    path = write(tmp_path / "ccks.json", [{"text": "胃窦癌术后。", "entity_list": [CANCER, CANCER, wrong, beyond]}])
    assert [fault.kind for fault in read_ccks(path).faults] == ["span is not the entity"] * 2


def test_a_sample_keeps_its_faults(tmp_path: Path) -> None:
    sentences = read_ccks(write(tmp_path / "ccks.json", [*RECORDS, RECORDS[0]]))
    assert [fault.kind for fault in sentences.faults] == ["sentence given twice"]
    assert len(sampled(sentences, 2, 0).rows) == 2
    assert sampled(sentences, 4, 0) is sentences


@pytest.mark.parametrize("shift", [0, -1])
@pytest.mark.parametrize("told", [True, False])
def test_the_end_is_counted_as_the_file_counts_it(tmp_path: Path, shift: int, told: bool) -> None:
    """CMeEE names the last character, CCKS the one after it; an entity of one character, or the last, tells which."""
    records = [
        {
            "text": text,
            "entities": [
                {
                    "type": "dis",
                    "start_idx": start,
                    "end_idx": end + shift,
                    **({"entity": text[start:end]} if told else {}),
                }
                for start, end in spans
            ],
        }
        for text, spans in (("胃窦癌术后。", [(0, 3)]), ("痛三天，考虑胃炎", [(0, 1), (6, 8)]))
    ]
    sentences = read_ccks(write(tmp_path / "ccks.json", records))
    assert [[e["text"] for e in row["entities"]] for row in sentences.rows] == [["胃窦癌"], ["痛", "胃炎"]]
    assert [[(e["start"], e["end"]) for e in row["entities"]] for row in sentences.rows] == [[(0, 3)], [(0, 1), (6, 8)]]
    assert (sentences.faults, sentences.end) == ([], "included" if shift else "not included")


def test_positions_that_fit_neither_way_are_refused(tmp_path: Path) -> None:
    wrong = {**CANCER, "entity_index": {"begin": 1, "end": 4}}
    path = write(tmp_path / "ccks.json", [{"text": "胃窦癌术后。", "entity_list": [CANCER, wrong, wrong]}])
    with pytest.raises(DataError, match=r"of 3 entities only 1 are at their positions .*'胃窦癌' at 1 to 4"):
        read_ccks(path)
    spans = [{"type": "病", "start": 0, "end": 0}, {"type": "病", "start": 0, "end": 3}]
    path = write(tmp_path / "ccks.json", [{"text": "胃窦癌", "entities": spans}])
    with pytest.raises(DataError, match="1 entities include their end and 1 do not"):
        read_ccks(path)


def test_a_sample_is_asked_for_the_types_of_the_whole_file(tmp_path: Path) -> None:
    part = sampled(read_ccks(write(tmp_path / "ccks.json", RECORDS)), 1, 0)
    prompt = evaluate(Oracle(lambda _: "无"), part, Settings(seed=0, limits={}))["prompt"]
    assert "实验室检验、疾病和诊断" in prompt


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[{", "ccks.json:1: not JSON"),
        ("[1]", "ccks.json:1: not an object"),
        ('[{"text": "无"}]', "has no entity_list or entities"),
        ('[{"text": "无", "entity_list": []}]', "holds no entities"),
        ('[{"text": "胃", "entity_list": [{"start": 0, "end": 1}]}]', "has no entity_type"),
        ('[{"text": "胃", "entity_list": [1]}]', "entity 1: is 1"),
        ('[{"text": "胃", "entity_list": 1}]', "entities are 1"),
        ('[{"text": 1, "entity_list": []}]', "text is 1"),
        ('[{"text": "胃", "entity_list": [{"type": "病", "start": "0", "end": 1}]}]', "a position is '0'"),
        ('[{"text": "胃", "entity_list": [{"type": 1, "start": 0, "end": 1}]}]', "type is 1"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "ccks.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        read_ccks(tmp_path / "ccks.json")


def test_positions_outside_of_every_text_are_refused(tmp_path: Path) -> None:
    records = [{"text": "头痛", "entities": [{"type": "症状", "start_idx": 5, "end_idx": 7}]}]
    with pytest.raises(DataError, match="none of its 1 entities is in its text"):
        read_ccks(write(tmp_path / "x.json", records))
