"""Splits a record that holds several rows into records of one row each: paraphrased questions, and ranked answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, Final

from data.prepare.options import Options
from data.prepare.schemas.turns import are_turns
from data.prepare.schemas.values import kind_of, number, string
from data.tables import DataError

_ANSWERS: Final = ("responses", "answers", "completions", "outputs", "candidates")
_TEXTS: Final = ("text", "content", "response", "answer", "output", "completion")
_SCORES: Final = ("score", "scores", "overall_score", "rating", "ratings")
_RANKS: Final = ("rank", "ranks")


def records_of(record: Any, options: Options) -> Iterator[Any]:
    """Yields the records of one row each that a record holds; the record itself if it is one row.

    `questions` and `answers`, two lists of texts one of which has a single text (Huatuo-26M's knowledge sets), give a
    record for each question and answer. Under `--kind preference`, answers with scores (higher is better) or ranks (1
    is the best) give a preference pair for every two answers with different scores or ranks.

    Raises:
        DataError: a list is not as described above.
    """
    if isinstance(record, list) and record and all(isinstance(one, str) for one in record):
        yield {"dialogue": record}  # MedDialog's original JSON
        return
    if are_turns(record):
        yield {"dialogue": record}  # MedDG
        return
    if not isinstance(record, Mapping):
        yield record
        return
    if "questions" in record and "answers" in record:
        yield from _knowledge(record)
        return
    answers = next((name for name in _ANSWERS if isinstance(record.get(name), list)), None)
    if options.kind == "preference" and answers is not None:
        yield from _ranked(record, answers)
        return
    yield record


def _knowledge(record: Mapping[str, Any]) -> Iterator[Any]:
    questions, answers = _flat(record["questions"], "questions"), _flat(record["answers"], "answers")
    if len(questions) > 1 and len(answers) > 1:
        raise DataError(
            f"has {len(questions)} questions and {len(answers)} answers, which cannot be paired; "
            "write one record per pair"
        )
    rest = {name: value for name, value in record.items() if name not in ("questions", "answers")}
    for question in questions:
        for answer in answers:
            yield {**rest, "question": question, "answer": answer}


def _flat(value: Any, name: str) -> list[str]:
    """Flattens a list of texts and lists of texts."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        raise DataError(f"{name} holds {kind_of(value)}; it must be a list of texts")
    found = [text for one in value for text in (one if isinstance(one, list) else [one])]
    return [string(text, name) for text in found]


def _ranked(record: Mapping[str, Any], name: str) -> Iterator[Any]:
    values: Sequence[Any] = record[name]
    if values and all(isinstance(one, Mapping) for one in values):
        texts = [next((one[key] for key in _TEXTS if key in one), None) for one in values]
        marks = _marks({key: [one.get(key) for one in values] for key in (*_SCORES, *_RANKS) if key in values[0]}, name)
    else:
        texts, marks = list(values), _marks(record, name)
    if len(marks) != len(texts):
        raise DataError(f"{name} has {len(texts)} answers and there are {len(marks)} scores or ranks; give one to each")
    rest = {key: value for key, value in record.items() if key not in (name, *_SCORES, *_RANKS)}
    pairs = [(one, other) for one, other in combinations(range(len(texts)), 2) if marks[one] != marks[other]]
    if not pairs:
        raise DataError(f"{name}: no two answers differ in score or rank")
    for one, other in pairs:
        better, worse = (one, other) if marks[one] > marks[other] else (other, one)
        yield {**rest, "chosen": texts[better], "rejected": texts[worse], "margin": marks[better] - marks[worse]}


def _marks(record: Mapping[str, Any], name: str) -> list[float]:
    """Returns a score for each answer, with higher being better: its score, or its negated rank."""
    for keys, sign in ((_SCORES, 1), (_RANKS, -1)):
        for key in keys:
            if isinstance(record.get(key), list):
                return [sign * number(one, key) for one in record[key]]
    raise DataError(
        f"{name} has several answers but no scores or ranks; add a list scores (higher is better) or ranks (1 is best)"
    )
