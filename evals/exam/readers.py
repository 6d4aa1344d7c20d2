"""Choice questions as others publish them: C-Eval's and CMMLU's CSV files, MedQA's JSON lines.

A file that cannot be read at all ends the evaluation. A question that cannot be asked, because an option is missing or
its answer is none of them, stays in, is named, and counts as wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.durable import sha256
from data.files.records import csv_head, csv_rows, json_lines
from data.tables import DataError
from evals.exam.questions import LETTERS, Exam, Question
from evals.faults import Fault, repeated

CMMLU_MEDICAL = {
    "anatomy": "解剖学",
    "clinical_knowledge": "临床知识",
    "college_medical_statistics": "大学医学统计",
    "genetics": "遗传学",
    "nutrition": "营养学",
    "traditional_chinese_medicine": "中医中药",
    "virology": "病毒学",
}
"""The seven subjects that ChiMed-GPT's table averages over, 1,166 questions, and what CMMLU's prompt calls them."""

CEVAL_MEDICAL = {"basic_medicine": "基础医学", "clinical_medicine": "临床医学"}
"""C-Eval's medical subjects whose 41 validation questions ChiMed-GPT's published figures are fractions of."""


@dataclass(frozen=True)
class _Layout:
    """Where a benchmark keeps a subject's questions and examples; `{}` is the subject."""

    questions: Sequence[str]
    examples: Sequence[str]


_CMMLU = _Layout(("{}.test.csv", "test/{}.csv"), ("{}.dev.csv", "dev/{}.csv"))
_CEVAL = _Layout(("{}_val.csv", "val/{}_val.csv"), ("{}_dev.csv", "dev/{}_dev.csv"))


def read_cmmlu(folder: Path) -> Exam:
    """CMMLU's seven medical subjects: `SUBJECT.test.csv` and `SUBJECT.dev.csv`, or `test/` and `dev/` with them."""
    return _read_subjects("cmmlu", folder, _CMMLU, CMMLU_MEDICAL)


def read_ceval(folder: Path) -> Exam:
    """C-Eval's medical subjects: `val/SUBJECT_val.csv` and `dev/SUBJECT_dev.csv` (the test split has no answers)."""
    return _read_subjects("ceval", folder, _CEVAL, CEVAL_MEDICAL)


def read_exam(path: Path) -> Exam:
    """Questions of any origin: a .csv or .jsonl file, or a folder of them, a subject each; `NAME.dev.*` are examples.

    Columns are `question` (or `Question`), the options A, B, ..., and `answer` or `answer_idx`, a letter; in JSON lines
    the options may also be one object, as MedQA's are, and then the answer may be an option's text.
    """
    files = [path] if path.is_file() else sorted([*path.glob("*.csv"), *path.glob("*.jsonl")])
    if not files:
        raise DataError(f"{path}: there are no .csv or .jsonl files; name a file of questions or a folder with some")
    questions = [file for file in files if ".dev." not in file.name]
    examples = {file.name.split(".dev.")[0]: file for file in files if ".dev." in file.name}
    exam = Exam("exam", [], {})
    for file in questions:
        subject = file.name.split(".")[0]
        _add(exam, subject, file, examples.get(subject))
    return _checked(exam)


def _read_subjects(name: str, folder: Path, layout: _Layout, subjects: Mapping[str, str]) -> Exam:
    exam = Exam(name, [], {})
    for subject in subjects:
        questions = _find(folder, layout.questions, subject)
        if questions is None:
            raise DataError(
                f"{folder}: there is no {layout.questions[0].format(subject)}, nor {layout.questions[1].format(subject)}; "
                f"name the folder with all {len(subjects)} medical subjects of {name}"
            )
        _add(exam, subject, questions, _find(folder, layout.examples, subject))
    return _checked(exam)


def _find(folder: Path, patterns: Sequence[str], subject: str) -> Path | None:
    places = (folder / pattern.format(subject) for pattern in patterns)
    return next((place for place in places if place.is_file()), None)


def _add(exam: Exam, subject: str, questions: Path, examples: Path | None) -> None:
    exam.questions.extend(_read_file(questions, subject))
    exam.files[str(questions)] = sha256(questions)
    if examples is not None:
        exam.examples[subject] = [question for question in _read_file(examples, subject) if not question.fault]
        exam.files[str(examples)] = sha256(examples)


def _checked(exam: Exam) -> Exam:
    """With the faults of its questions. A question given twice is asked twice."""
    exam.faults.extend(Fault(q.fault, q.where) for q in exam.questions if q.fault)
    doubled = [q for q in exam.questions if not q.fault and len(set(q.options)) < len(q.options)]
    exam.faults.extend(Fault("option given twice", q.where, "asked all the same") for q in doubled)
    asked = [(q.where, q.text + "\n".join(sorted(q.options))) for q in exam.questions if not q.fault]
    exam.faults.extend(repeated(asked, "question given twice"))
    return exam


def _read_file(path: Path, subject: str) -> list[Question]:
    rows = list(_read_csv(path) if path.suffix == ".csv" else _read_jsonl(path))
    questions = [_question(f"{path.name}:{line}", subject, row) for line, row in rows]
    if not questions:
        raise DataError(f"{path}: holds no questions; leave the file out or fill it")
    if all(question.fault for question in questions):
        columns = ", ".join(rows[0][1])
        raise DataError(
            f"{path}: none of its {len(questions)} questions can be asked ({questions[0].where}: {questions[0].fault}; its "
            f"columns are {columns}); give question, A, B, ... or options, and answer"
        )
    return questions


def _read_csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    names = {name.lower() for name in csv_head(path)}
    for needed in ("question", "a", "b", "answer"):
        if needed not in names:
            raise DataError(f"{path}: has no column '{needed}'; give it a header like Question,A,B,C,D,Answer")
    for line, row in csv_rows(path):
        yield line, {name.lower(): value for name, value in row.items()}


def _read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, row in json_lines(path):
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: not a JSON object; write one object a line")
        options = row.get("options")
        lettered = options if isinstance(options, dict) else {}
        if isinstance(options, list):
            lettered = dict(zip(LETTERS, options, strict=False))
        yield number, {str(key).lower(): value for key, value in {**row, **lettered}.items()}


def _question(where: str, subject: str, row: Mapping[str, Any]) -> Question:
    """A question of a row whose keys are in lower case."""
    given = {letter: _text(row.get(letter.lower())) for letter in LETTERS if letter.lower() in row}
    options = tuple(given.values())
    told = _text(row.get("answer_idx")) or _text(row.get("answer"))
    answer = LETTERS.index(told.upper()) if len(told) == 1 and told.upper() in given else -1
    if answer < 0 and options.count(told) == 1:
        answer = options.index(told)  # MedQA's first edition gives the option's text
    text = _text(row.get("question"))
    fault = ""
    if not text:
        fault = "question missing"
    elif len(options) < 2 or not all(options) or "".join(given) != LETTERS[: len(given)]:
        fault = "option missing"
    elif answer < 0:
        fault = "answer is none of the options"
    return Question(where, subject, text, options, answer, fault)


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()
