"""Reads exams in published formats: a file, a folder with one file per subject, or CMMLU's and C-Eval's folders.

An unreadable file stops the evaluation. A question that cannot be asked, because an option is missing or its answer is
not one of the options, is kept, reported as a fault, and counts as wrong. Record layouts are those of `data.choices`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.choices.columns import ANSWERS, KEYS, QUESTIONS, normalized, option_columns
from data.choices.question import NO_ANSWER, NO_OPTION, UnusableQuestion
from data.choices.reader import count_from, read_choice
from data.files.records import csv_head, csv_rows, json_records
from data.prepare.options import Options
from data.prepare.reading.readers import read
from data.prepare.reading.sources import Piece, describe
from data.tables import DataError
from evals.tasks.exam.questions import Exam, Question
from evals.tasks.exam.subjects import CEVAL_MEDICAL, CMMLU_MEDICAL
from evals.tasks.faults import Fault, repeated
from storage.durable import sha256

_ENDINGS = (".csv", ".jsonl", ".json", ".parquet")
_COUNTS = {2: "two", 7: "seven"}
_SPLITS = (("val", "_val", "_dev"), ("test", "", ""))
"""Folder of a benchmark's questions, and the suffixes of a subject's file names there and in `dev/`.

C-Eval uses the validation split, because its test split has no answers; CMMLU uses the test split.
"""


_SPLIT_NAME = re.compile(r"(.+)[._](dev|val|test)")


@dataclass(frozen=True)
class _Layout:
    """Paths of a subject's questions and examples in a benchmark's folder; `{}` stands for the subject."""

    questions: Sequence[str]
    examples: Sequence[str]


_CMMLU = _Layout(("{}.test.csv", "test/{}.csv"), ("{}.dev.csv", "dev/{}.csv"))
_CEVAL = _Layout(("{}_val.csv", "val/{}_val.csv"), ("{}_dev.csv", "dev/{}_dev.csv"))


def read_cmmlu(folder: Path) -> Exam:
    """Reads CMMLU's seven medical subjects from `SUBJECT.test.csv` and `SUBJECT.dev.csv`, or from `test/` and `dev/`.

    If the folder has none of the seven, but `test/` and `dev/` with other subjects, all of those are read.

    Raises:
        DataError: a subject is missing, or a file is unusable.
    """
    return _read_subjects("cmmlu", folder, _CMMLU, CMMLU_MEDICAL)


def read_ceval(folder: Path) -> Exam:
    """Reads C-Eval's two medical subjects from `val/SUBJECT_val.csv` and `dev/SUBJECT_dev.csv`, or without the folders.

    The test split has no answers. If the folder has neither subject, but `val/` with others, all of those are read.

    Raises:
        DataError: a subject is missing, or a file is unusable.
    """
    return _read_subjects("ceval", folder, _CEVAL, CEVAL_MEDICAL)


def read_exam(path: Path) -> Exam:
    """Reads an exam from a file, or from a folder with one file per subject.

    In a folder, `NAME.dev.*` and `NAME_dev.*` contain the few-shot examples for the questions in `NAME.*`,
    `NAME.test.*`, `NAME_val.*`, or `NAME_test.*`. A folder that contains only `test/` (or `val/`) and `dev/` is read
    like CMMLU's (or C-Eval's) folder, with one file per subject and the examples in `dev/`.

    Raises:
        DataError: there are no questions, or a file is unusable.
    """
    if path.is_dir() and not _files(path) and _split_files(path):
        return _read_split("exam", path)
    files = [path] if path.is_file() else _files(path)
    if not files:
        raise DataError(
            f"{path}: there are no .csv or .jsonl files, nor .json, .parquet, or folders test/ and dev/ with such files; "
            "name a file of questions or a folder with some"
        )
    named = [(*_subject_and_split(file), file) for file in files]
    examples = {subject: file for subject, split, file in named if split == "dev" and len(files) > 1}
    questions = [(subject, file) for subject, _, file in named if file not in examples.values()]
    if not questions:
        raise DataError(
            f"{path}: all files are named NAME.dev.* or NAME_dev.*, which are few-shot examples; add the files with the questions"
        )
    exam = Exam("exam", [], {})
    for subject, file in questions:
        _add(exam, subject, file, examples.get(subject))
    return _checked(exam)


def _subject_and_split(file: Path) -> tuple[str, str]:
    """Returns the subject and split in a file's name, ("anatomy", "test") for `anatomy.test.csv`; split "" if none."""
    match = _SPLIT_NAME.fullmatch(file.stem)
    return (match[1], match[2]) if match else (file.name.split(".")[0], "")


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*") if file.suffix in _ENDINGS and file.is_file())


def _split_files(folder: Path) -> dict[str, tuple[Path, Path | None]]:
    """Returns the question and example files of each subject, in the first of `_SPLITS` that the folder has."""
    for split, ending, example in _SPLITS:
        found = {file.stem.removesuffix(ending): file for file in _files(folder / split)}
        if found:
            dev = {file.stem.removesuffix(example): file for file in _files(folder / "dev")}
            return {subject: (file, dev.get(subject)) for subject, file in found.items()}
    return {}


def _read_split(name: str, folder: Path) -> Exam:
    exam = Exam(name, [], {})
    for subject, (questions, examples) in _split_files(folder).items():
        _add(exam, subject, questions, examples)
    return _checked(exam)


def _read_subjects(name: str, folder: Path, layout: _Layout, subjects: Mapping[str, str]) -> Exam:
    if not any(_find(folder, layout.questions, subject) for subject in subjects) and _split_files(folder):
        exam = _read_split(name, folder)
        asked = ", ".join(dict.fromkeys(question.subject for question in exam.questions))
        kind = f"not the {_COUNTS[len(subjects)]} medical subjects"
        exam.faults.append(Fault(kind, str(folder), f"{asked}: not comparable with the published row"))
        return exam
    exam = Exam(name, [], {})
    for subject in subjects:
        questions = _find(folder, layout.questions, subject)
        if questions is None:
            raise DataError(
                f"{folder}: there is no {layout.questions[0].format(subject)}, nor {layout.questions[1].format(subject)}; "
                f"name the folder with all {len(subjects)} medical subjects of {name}, or ask the subjects that are there with "
                f"--tasks exam --file exam={folder}"
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
    """Adds the questions' faults to an exam, and returns it; duplicate questions are reported, but all are asked."""
    exam.faults.extend(Fault(q.fault, q.where, q.detail) for q in exam.questions if q.fault)
    doubled = [q for q in exam.questions if not q.fault and len(set(q.options)) < len(q.options)]
    exam.faults.extend(Fault("option given twice", q.where, "kept") for q in doubled)
    asked = [(q.where, q.text + "\n".join(sorted(q.options))) for q in exam.questions if not q.fault]
    exam.faults.extend(repeated(asked, "question given twice"))
    return exam


def _read_file(path: Path, subject: str) -> list[Question]:
    rows = list(_rows(path))
    counted_from = count_from([row for _, row in rows])
    questions = [_question(f"{path.name}:{line}", subject, row, counted_from) for line, row in rows]
    if not questions:
        raise DataError(f"{path}: holds no questions; leave the file out or fill it")
    if all(question.fault for question in questions):
        first = questions[0]
        raise DataError(
            f"{path}: none of its {len(questions)} questions can be asked ({first.where}: {first.fault}"
            f"{first.detail and f', {first.detail}'}; its columns are {', '.join(map(str, rows[0][1]))}); give question, A, B, "
            "... or options, and answer"
        )
    return questions


def _rows(path: Path) -> Iterator[tuple[int, Mapping[Any, Any]]]:
    if path.suffix == ".csv":
        return _read_csv(path)
    return _read_jsonl(path) if path.suffix == ".jsonl" else _read_other(path)


def _read_other(path: Path) -> Iterator[tuple[int, Mapping[Any, Any]]]:
    """Yields the records of a JSON list or a Parquet file, each as (line, record)."""
    source = describe(str(path))
    for found in read(Piece(source), Options("text")):
        if found.bad or not isinstance(found.record, Mapping):
            raise DataError(
                f"{path}:{found.line}: {found.bad or 'holds no record with named columns'}; correct the file"
            )
        yield found.line, found.record


def _check_columns(path: Path, names: Sequence[str]) -> None:
    """Rejects a table without columns for questions, options, or answers.

    Raises:
        DataError: the table has no such column; the message names the first missing one (`question`, `a`, `b`, or
            `answer`) and a valid header.
    """
    known = {normalized(name) for name in names}
    group, single = option_columns(names)
    missing = [] if known & {*QUESTIONS, "input"} else ["question"]
    if group is None and not single:
        missing += [letter for letter in ("a", "b") if letter not in known]
    if not known & {*KEYS, *ANSWERS}:
        missing.append("answer")
    if missing:
        raise DataError(f"{path}: has no column '{missing[0]}'; give it a header like Question,A,B,C,D,Answer")


def _read_csv(path: Path) -> Iterator[tuple[int, Mapping[Any, Any]]]:
    _check_columns(path, csv_head(path))
    yield from csv_rows(path)


def _read_jsonl(path: Path) -> Iterator[tuple[int, Mapping[Any, Any]]]:
    for number, row in json_records(path):
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: not a JSON object; write one object a line")
        yield number, row


def _question(where: str, subject: str, row: Mapping[Any, Any], first: int | None) -> Question:
    try:
        choice = read_choice(row, first)
    except UnusableQuestion as error:
        return Question(where, subject, "", (), -1, error.kind, detail=str(error))
    if choice is None:
        return Question(where, subject, "", (), -1, NO_OPTION, detail=f"columns {', '.join(map(str, row))}")
    if not choice.answers:
        return Question(where, subject, choice.question, choice.options, -1, NO_ANSWER, detail="there is no answer")
    return Question(where, subject, choice.question, choice.options, choice.answers[0], more_answers=choice.answers[1:])
