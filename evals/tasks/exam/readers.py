"""Reads exams in published formats: a file, a folder with one file per subject, or CMMLU's and C-Eval's folders.

An unreadable file stops the evaluation. A question that cannot be asked, because an option is missing or its answer is
not one of the options, is kept, reported as a fault, and counts as wrong. Record layouts are those of `data.choices`.
"""

from __future__ import annotations

import logging
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

logger = logging.getLogger(__name__)

_ENDINGS = (".csv", ".jsonl", ".json", ".parquet")
_COUNTS = {2: "two", 7: "seven"}
_PREFERRED = {"cmmlu": ("test", "val"), "ceval": ("val", "test"), "exam": ("test", "val")}
"""The splits with questions, by exam, in the order of preference among those whose questions have answers.

CMMLU's publisher scores the test split. C-Eval's does, too, but publishes it without answers, so that others score the
validation split.
"""
_SPLIT_NAME = re.compile(r"(.+)[._](dev|val|test)")


class _NoAnswerColumn(DataError):
    """A table has questions and options, but no answers, such as C-Eval's test split."""


@dataclass(frozen=True)
class _Layout:
    """The split of a benchmark that is scored, and the paths of a subject's questions and examples in its folder.

    In a path, `{}` stands for the subject.
    """

    split: str
    questions: Sequence[str]
    examples: Sequence[str]


_CMMLU = _Layout("test", ("{}.test.csv", "test/{}.csv"), ("{}.dev.csv", "dev/{}.csv"))
_CEVAL = _Layout("val", ("{}_val.csv", "val/{}_val.csv"), ("{}_dev.csv", "dev/{}_dev.csv"))


def read_cmmlu(folder: Path) -> Exam:
    """Reads CMMLU's seven medical subjects from `SUBJECT.test.csv` and `SUBJECT.dev.csv`, or from `test/` and `dev/`.

    If the folder has none of the seven, but `test/` and `dev/` with other subjects, all of those are read; `val/` if
    there is no `test/` with answers.

    Raises:
        DataError: a subject is missing, or a file is unusable.
    """
    return _read_subjects("cmmlu", folder, _CMMLU, CMMLU_MEDICAL)


def read_ceval(folder: Path) -> Exam:
    """Reads C-Eval's two medical subjects from `val/SUBJECT_val.csv` and `dev/SUBJECT_dev.csv`, or without the folders.

    The published test split has no answers. If the folder has neither subject, but `val/` with others, all of those are
    read; `test/` if there is no `val/` with answers.

    Raises:
        DataError: a subject is missing, or a file is unusable.
    """
    return _read_subjects("ceval", folder, _CEVAL, CEVAL_MEDICAL)


def read_exam(path: Path) -> Exam:
    """Reads an exam from a file, or from a folder with one file per subject.

    In a folder, `NAME.dev.*` and `NAME_dev.*` contain the few-shot examples for the questions in `NAME.*`,
    `NAME.test.*`, `NAME_val.*`, or `NAME_test.*`. A folder that contains only `test/` (or `val/`) and `dev/` is read
    like CMMLU's (or C-Eval's) folder, with one file per subject and the examples in `dev/`. If there is a test and a
    validation split, the test split is read if its questions have answers, and otherwise the validation split; a log
    line says which.

    Raises:
        DataError: there are no questions, or a file is unusable.
    """
    if path.is_dir() and not _files(path) and _has_splits(path):
        return _read_split("exam", path)
    files = [path] if path.is_file() else _files(path)
    if not files:
        raise DataError(
            f"{path}: there are no .csv or .jsonl files, nor .json, .parquet, or folders test/ and dev/ with such files; "
            "name a file of questions or a folder with some"
        )
    named = [(*_subject_and_split(file), file) for file in files]
    examples = {subject: file for subject, split, file in named if split == "dev" and len(files) > 1}
    questions = [one for one in named if one[2] not in examples.values()]
    if not questions:
        raise DataError(
            f"{path}: all files are named NAME.dev.* or NAME_dev.*, which are few-shot examples; add the files with the questions"
        )
    exam = Exam("exam", [], {})
    for subject, file in _one_split_each(path, questions):
        _add(exam, subject, file, examples.get(subject))
    return _checked(exam)


def _one_split_each(path: Path, named: Sequence[tuple[str, str, Path]]) -> list[tuple[str, Path]]:
    """Returns subject and path of the files to read: of subjects with a test and a validation split, one of these.

    Args:
        path: the exam, for the log.
        named: subject, split ("" if its name has none), and path of each file with questions.
    """
    files = {(subject, split): file for subject, split, file in named}
    both = [subject for subject, split in files if split == "test" and (subject, "val") in files]
    splits = {split: [files[subject, split] for subject in both] for split in _PREFERRED["exam"]}
    read = _preferred("exam", path, splits) if both else ""
    left_out = {file for split, some in splits.items() if split != read for file in some}
    return [(subject, file) for subject, _, file in named if file not in left_out]


def _preferred(exam: str, path: Path, splits: Mapping[str, Sequence[Path]]) -> str:
    """Returns the split to read, and logs it.

    It is the first one of `_PREFERRED` whose questions have answers; if there is none, the first one.

    Args:
        exam: the key in `_PREFERRED`.
        path: the exam, for the log.
        splits: the files of each split that exists; at least one split.
    """
    order = [split for split in _PREFERRED[exam] if split in splits]
    read = next((split for split in order if any(map(_has_answers, splits[split]))), order[0])
    others = [f"{split} has no answers" for split in order[: order.index(read)]]
    others += [f"{split} is not read" for split in order[order.index(read) + 1 :]]
    logger.info("%s: reads the split %s%s", path, read, f" ({', '.join(others)})" if others else "")
    return read


def _has_answers(file: Path) -> bool:
    """Returns whether the file has a question whose answer is one of its options.

    Returns true for a file that is unusable for another reason, because reading it raises an error that says why.
    """
    try:
        rows = [row for _, row in _rows(file)]
        first = count_from(rows)
    except _NoAnswerColumn:
        return False
    except DataError:
        return True
    return not all(_question("", "", row, first).fault == NO_ANSWER for row in rows)


def _subject_and_split(file: Path) -> tuple[str, str]:
    """Returns the subject and split in a file's name, ("anatomy", "test") for `anatomy.test.csv`; split "" if none."""
    match = _SPLIT_NAME.fullmatch(file.stem)
    return (match[1], match[2]) if match else (file.name.split(".")[0], "")


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*") if file.suffix in _ENDINGS and file.is_file())


def _has_splits(folder: Path) -> bool:
    return any(_files(folder / split) for split in ("test", "val"))


def _read_split(name: str, folder: Path) -> Exam:
    """Reads a folder with `test/` or `val/`, and perhaps `dev/` with the examples.

    A subject's file is, for example, `val/SUBJECT.csv` or `val/SUBJECT_val.csv`.
    """
    split = _preferred(name, folder, {split: found for split in _PREFERRED[name] if (found := _files(folder / split))})
    examples = {file.stem.removesuffix("_dev"): file for file in _files(folder / "dev")}
    exam = Exam(name, [], {})
    for file in _files(folder / split):
        subject = file.stem.removesuffix(f"_{split}")
        _add(exam, subject, file, examples.get(subject))
    return _checked(exam)


def _read_subjects(name: str, folder: Path, layout: _Layout, subjects: Mapping[str, str]) -> Exam:
    if not any(_find(folder, layout.questions, subject) for subject in subjects) and _has_splits(folder):
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
    logger.info("%s: reads the split %s", folder, layout.split)
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
        kind = _NoAnswerColumn if missing == ["answer"] else DataError
        raise kind(f"{path}: has no column '{missing[0]}'; give it a header like Question,A,B,C,D,Answer")


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
