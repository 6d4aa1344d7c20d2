from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from data.tables import DataError
from evals.tasks.exam.prompts import prompt
from evals.tasks.exam.questions import Exam
from evals.tasks.exam.readers import CMMLU_MEDICAL, read_ceval, read_cmmlu, read_exam
from evals.tasks.exam.subjects import CEVAL, CMMLU, name_of

CORPORA = Path(__file__).resolve().parents[4] / "../shared/corpora"
HEADER = ",Question,A,B,C,D,Answer\n"


def test_cmmlu_in_both_layouts(tmp_path: Path) -> None:
    for layout in ("{}.test.csv {}.dev.csv", "test/{}.csv dev/{}.csv"):
        folder = tmp_path / layout[:4].strip("{}/.")
        for subject in CMMLU_MEDICAL:
            for place, row in zip(layout.split(), ("骨有,甲,乙,丙,丁,c", "肉有,甲,乙,丙,丁,A"), strict=True):
                file = folder / place.format(subject)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(f"{HEADER}0,{row}\n", encoding="utf-8")
        exam = read_cmmlu(folder)
        assert [q.subject for q in exam.questions] == list(CMMLU_MEDICAL)
        assert (exam.questions[0].text, exam.questions[0].options, exam.questions[0].answer) == (
            "骨有",
            tuple("甲乙丙丁"),
            2,
        )
        assert exam.examples["anatomy"][0].text == "肉有"
        assert exam.questions[0].where == f"{Path(layout.split()[0].format('anatomy')).name}:2"
        assert len(exam.files) == 14
        assert all(len(digest) == 64 for digest in exam.files.values())


def test_a_missing_subject_is_named(tmp_path: Path) -> None:
    (tmp_path / "anatomy.test.csv").write_text(HEADER + "0,骨,甲,乙,丙,丁,A\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"there is no clinical_knowledge\.test\.csv, nor test/clinical_knowledge\.csv"):
        read_cmmlu(tmp_path)
    with pytest.raises(DataError, match=r"no basic_medicine_val\.csv.*all 2 medical subjects of ceval"):
        read_ceval(tmp_path)


def test_ceval(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for subject in ("basic_medicine", "clinical_medicine"):
        for split in ("val", "dev"):
            (tmp_path / split).mkdir(exist_ok=True)
            text = 'id,question,A,B,C,D,answer,explanation\n0,"骨,有",甲,乙,丙,丁,D,因为\n'
            (tmp_path / split / f"{subject}_{split}.csv").write_text(text, encoding="utf-8-sig")
    caplog.set_level("INFO")
    exam = read_ceval(tmp_path)
    assert caplog.messages == [f"{tmp_path}: reads the split val"]
    assert [(q.text, q.answer, q.fault) for q in exam.questions] == [("骨,有", 3, "")] * 2
    assert set(exam.examples) == {"basic_medicine", "clinical_medicine"}


def test_medqa_with_letters_texts_and_five_options(tmp_path: Path) -> None:
    rows = [
        {
            "question": "一",
            "options": {"A": "甲", "B": "乙", "C": "丙", "D": "丁", "E": "戊"},
            "answer": "戊",
            "answer_idx": "E",
        },
        {
            "question": "二",
            "options": {"A": "甲", "B": "乙", "C": "丙", "D": "丁"},
            "answer": "乙",
            "meta_info": "卷一",
        },
        {"question": "三", "options": ["甲", "乙"], "answer": "B"},
    ]
    file = tmp_path / "medqa.jsonl"
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    exam = read_exam(file)
    assert [(len(q.options), q.answer, q.subject) for q in exam.questions] == [
        (5, 4, "medqa"),
        (4, 1, "medqa"),
        (2, 1, "medqa"),
    ]
    assert exam.faults == []


def test_layouts_of_other_publishers(tmp_path: Path) -> None:
    records = {
        "cmb.json": [{"question": "问", "option": {"A": "甲", "B": "乙", "C": "丙", "D": "丁", "E": ""}, "answer": "AC"}],
        "cmexam.csv": "Question,Options,Response,Explanation\n问,\"A 甲\nB 乙\nC 丙\nD 丁\",AC,因为\n",
        "pairs.jsonl": [{"question": "问", "options": [{"key": k, "value": v} for k, v in zip("ABCD", "甲乙丙丁", strict=True)], "answer": ["甲", "丙"]}],
    }  # fmt: skip
    for name, content in records.items():
        text = content if isinstance(content, str) else json.dumps(content if name == "cmb.json" else content[0])
        (tmp_path / name).write_text(text, encoding="utf-8")
    exam = read_exam(tmp_path)
    assert [(q.subject, q.options, q.key, q.fault) for q in exam.questions] == [
        (name, tuple("甲乙丙丁"), "AC", "") for name in ("cmb", "cmexam", "pairs")
    ]


def test_numbers_count_from_where_all_of_a_file_fit(tmp_path: Path) -> None:
    for name, keys in (("zero", (0, 3)), ("one", (1, 4)), ("either", (1, 2))):
        rows = [
            {"question": f"问{key}", "opa": "甲", "opb": "乙", "opc": "丙", "opd": "丁", "cop": key} for key in keys
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    for name in ("zero", "one"):
        assert [q.key for q in read_exam(tmp_path / f"{name}.jsonl").questions] == ["A", "D"]
    with pytest.raises(
        DataError, match=r"none of its 2 questions can be asked \(either\.jsonl:1: answer is a number, "
    ):
        read_exam(tmp_path / "either.jsonl")


@pytest.mark.parametrize("read", [read_cmmlu, read_exam])
def test_cmmlus_folders_of_any_subject(tmp_path: Path, read: Callable[[Path], Exam]) -> None:
    for split, row in (("test", "土壤,甲,乙,丙,丁,B"), ("dev", "种子,甲,乙,丙,丁,A")):
        (tmp_path / split).mkdir()
        (tmp_path / split / "agronomy.csv").write_text(f"{HEADER}0,{row}\n", encoding="utf-8")
    exam = read(tmp_path)
    assert [(q.subject, q.text, q.key) for q in exam.questions] == [("agronomy", "土壤", "B")]
    assert [q.text for q in exam.examples["agronomy"]] == ["种子"]
    assert prompt(exam.name, exam.questions[0], []).startswith("以下是关于农学的单项选择题")
    kinds = {fault.kind for fault in exam.faults}
    assert kinds == ({"not the seven medical subjects"} if read is read_cmmlu else set())
    assert len(exam.files) == 2


def test_cevals_folders_are_an_exam_too(tmp_path: Path) -> None:
    for split in ("val", "dev", "test"):
        (tmp_path / split).mkdir()
        answer = "" if split == "test" else "A"
        (tmp_path / split / f"physician_{split}.csv").write_text(
            f"id,question,A,B,C,D,answer\n0,{split},甲,乙,丙,丁,{answer}\n", encoding="utf-8"
        )
    exam = read_exam(tmp_path)
    assert [(q.subject, q.text) for q in exam.questions] == [("physician", "val")]
    assert [q.text for q in exam.examples["physician"]] == ["dev"]


HEADS = {
    "with answers": "id,question,A,B,C,D,answer\n",
    "without": "id,question,A,B,C,D\n",
    "empty": "id,question,A,B,C,D,answer\n",
}
"""The header of a split's file; those with `empty` answers have the column."""


@pytest.mark.parametrize(
    ("exam", "test", "read", "said"),
    [
        ("exam", "with answers", "test", "reads the split test (val is not read)"),
        ("exam", "without", "val", "reads the split val (test has no answers)"),
        ("exam", "empty", "val", "reads the split val (test has no answers)"),
        ("flat", "with answers", "test", "reads the split test (val is not read)"),
        ("flat", "without", "val", "reads the split val (test has no answers)"),
        ("cmmlu", "with answers", "test", "reads the split test (val is not read)"),
        ("cmmlu", "empty", "val", "reads the split val (test has no answers)"),
        ("ceval", "with answers", "val", "reads the split val (test is not read)"),
        ("ceval", "without", "val", "reads the split val (test is not read)"),
    ],
)
def test_of_two_splits_the_one_that_is_scored_is_read_and_named(
    exam: str, test: str, read: str, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for split, kind in (("val", "with answers"), ("test", test), ("dev", "with answers")):
        folder = tmp_path if exam == "flat" else tmp_path / split
        folder.mkdir(exist_ok=True)
        answer = {"with answers": ",A", "without": "", "empty": ","}[kind]
        (folder / f"physician_{split}.csv").write_text(
            f"{HEADS[kind]}0,{split},甲,乙,丙,丁{answer}\n", encoding="utf-8"
        )
    found = {"cmmlu": read_cmmlu, "ceval": read_ceval}.get(exam, read_exam)(tmp_path)
    assert [(q.subject, q.text, q.key) for q in found.questions] == [("physician", read, "A")]
    assert [q.text for q in found.examples["physician"]] == ["dev"]
    assert caplog.messages == [f"{tmp_path}: {said}"]


def test_a_test_split_that_cannot_be_read_is_not_skipped(tmp_path: Path) -> None:
    for split, text in (("val", "id,question,A,B,answer\n0,题,甲,乙,A\n"), ("test", "id,A,B,answer\n0,甲,乙,A\n")):
        (tmp_path / split).mkdir()
        (tmp_path / split / f"physician_{split}.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="physician_test.csv: has no column 'question'"):
        read_exam(tmp_path)


def test_every_subject_of_cmmlu_and_ceval_has_a_chinese_name() -> None:
    assert (len(CMMLU), len(CEVAL)) == (67, 52)
    assert all(name and not name.isascii() for name in [*CMMLU.values(), *CEVAL.values()])
    assert name_of("ceval", "physician") == name_of("exam", "physician") == "医师资格"
    assert (name_of("ceval", "high_school_physics"), name_of("cmmlu", "high_school_physics")) == (
        "高中物理",
        "高中物理学",
    )
    assert name_of("exam", "骨科") == "骨科"


def test_what_cannot_be_asked_stays_in_and_is_named(tmp_path: Path) -> None:
    rows = [
        "好,甲,乙,丙,丁,A",
        "缺,甲,,丙,丁,A",
        "外,甲,乙,丙,丁,E",
        "无,甲,乙,丙,丁,",
        "重,甲,甲,丙,丁,B",
        ",甲,乙,丙,丁,B",
        "好,乙,甲,丙,丁,B",
    ]
    file = tmp_path / "骨科.csv"
    file.write_text(HEADER + "".join(f"{n},{row}\n" for n, row in enumerate(rows)), encoding="utf-8")
    exam = read_exam(file)
    assert len(exam.questions) == 7
    assert [(fault.where, fault.kind) for fault in exam.faults] == [
        ("骨科.csv:3", "option missing"),
        ("骨科.csv:4", "answer is none of the options"),
        ("骨科.csv:5", "answer is none of the options"),
        ("骨科.csv:7", "question missing"),
        ("骨科.csv:6", "option given twice"),
        ("骨科.csv:8", "question given twice"),
    ]
    assert exam.faults[-1].detail == "also at 骨科.csv:2"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.csv", "id,question,A\n", "has no column 'b'"),
        ("x.csv", "Question,A,B,Answer\n", "holds no questions"),
        ("x.jsonl", "{坏", "x.jsonl:1: not JSON"),
        ("x.jsonl", "[1]", "x.jsonl:1: not a JSON object"),
        (
            "x.jsonl",
            '{"题目": "哪项", "选项": ["甲", "乙"]}',
            "none of its 1 questions can be asked .*columns are 题目, 选项",
        ),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        read_exam(tmp_path)


def test_no_files_and_utf16_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there are no .csv or .jsonl files"):
        read_exam(tmp_path)
    (tmp_path / "x.csv").write_bytes("题目,A,B,Answer".encode("utf-16"))
    with pytest.raises(DataError, match="x.csv: is UTF-16"):
        read_exam(tmp_path)


@pytest.mark.skipif(not (CORPORA / "cmmlu").is_dir(), reason="CMMLU is not here")
def test_cmmlus_medical_preset_has_its_1166_questions() -> None:
    exam = read_cmmlu(CORPORA / "cmmlu")
    assert len(exam.questions) == 1166
    assert {len(examples) for examples in exam.examples.values()} == {5}
    assert not any(question.fault for question in exam.questions)
    assert {fault.kind for fault in exam.faults} == {"option given twice", "question given twice"}


def test_dev_files_beside_val_files_are_examples(tmp_path: Path) -> None:
    head = "id,question,A,B,C,D,answer\n"
    for split in ("val", "dev"):
        (tmp_path / f"physician_{split}.csv").write_text(f"{head}0,{split},甲,乙,丙,丁,A\n", encoding="utf-8")
    exam = read_exam(tmp_path)
    assert [(q.subject, q.text) for q in exam.questions] == [("physician", "val")]
    assert [q.text for q in exam.examples["physician"]] == ["dev"]
    alone = read_exam(tmp_path / "physician_dev.csv")
    assert [(q.subject, q.text) for q in alone.questions] == [("physician", "dev")]
    assert prompt("exam", alone.questions[0], []).startswith("以下是关于医师资格的")


def test_other_subjects_of_ceval_are_asked_and_named(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    file = tmp_path / "val" / "physician_val.csv"
    file.write_text("id,question,A,B,C,D,answer\n0,题,甲,乙,丙,丁,A\n", encoding="utf-8")
    exam = read_ceval(tmp_path)
    assert [(fault.kind, fault.detail) for fault in exam.faults] == [
        ("not the two medical subjects", "physician: not comparable with the published row")
    ]
    assert prompt(exam.name, exam.questions[0], []).startswith("以下是中国关于医师资格考试的单项选择题")


def test_a_column_named_twice_is_not_chosen_among(tmp_path: Path) -> None:
    twice = tmp_path / "x.csv"
    twice.write_text("question,A,A,B,answer\n题,甲,乙,丙,A\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"x.csv:1: the header line names the column 'A' twice"):
        read_exam(twice)
    twice.write_text("question,A,B,answer,Answer\n题,甲,乙,A,B\n题二,甲,乙,A,A\n", encoding="utf-8")
    exam = read_exam(twice)
    assert [fault.detail for fault in exam.faults] == ["two columns are named 'answer' and differ; rename one of them"]
    assert exam.questions[1].key == "A"
    lines = tmp_path / "x.jsonl"
    lines.write_text(
        '{"question": "题", "options": {"A": "甲", "B": "乙", "A": "丙"}, "answer": "A"}\n', encoding="utf-8"
    )
    with pytest.raises(DataError, match=r"x.jsonl:1: .*the key 'A' is given twice"):
        read_exam(lines)


@pytest.mark.parametrize("between", [";", "；", ",", "，", " | ", "、", " "])
def test_what_stands_between_options_is_no_part_of_them(tmp_path: Path, between: str) -> None:
    file = tmp_path / "x.jsonl"
    options = between.join(["A.胃镜", "B.胸片", "C.心电图"])
    file.write_text(json.dumps([{"question": "题", "options": options, "answer": "B"}]), encoding="utf-8")
    assert read_exam(file).questions[0].options == ("胃镜", "胸片", "心电图")
