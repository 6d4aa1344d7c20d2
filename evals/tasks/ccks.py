"""Named entity recognition on files in the JSON formats of CCKS-2019 and CMeEE: sentences with typed spans."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data.chat import Message
from data.files.records import json_records
from data.tables import DataError
from evals.metrics.spans import End, Span, end_of
from evals.models.respondent import Respondent
from evals.models.subject import Metrics, Row, Settings
from evals.tasks.faults import EMPTY, TOO_LONG, Fault, fault_counts, repeated
from evals.tasks.ner import ner_metrics, question, types_of
from storage.durable import sha256

_TEXTS = ("text", "originalText")
_LISTS = ("entity_list", "entities")
_TYPES = ("entity_type", "label_type", "type")
_STARTS = ("start", "start_pos", "start_idx", "begin")
_ENDS = ("end", "end_pos", "end_idx")


@dataclass(frozen=True)
class _Sentence:
    """A record of the file; the ends of its spans follow the file's convention."""

    text: str
    spans: list[Span]


@dataclass(frozen=True)
class Sentences:
    """The sentences of a file: rows with `text` and `entities`, in the format of the sample clinic's NER table."""

    rows: list[Row]
    wheres: list[str]
    """The location of each row: FILE:LINE, or the record's number."""
    types: tuple[str, ...]
    """Entity types of the whole file, even if only a sample is evaluated."""
    end: End
    """The file's convention for end positions; in `rows`, ends are not included."""
    faults: list[Fault] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 by path, of every file that was read."""


def read_ccks(path: Path) -> Sentences:
    """Reads a JSON list or JSON Lines: `{"text", "entity_list": [{"entity_type", "entity_index": {"begin", "end"}}]}`.

    Offsets count characters and may also be keys of the entity itself. CCKS's own names (`originalText`, `entities`,
    `label_type`, `start_pos`, `end_pos`) and CMeEE's (`start_idx`, `end_idx`) are accepted as well. Whether ends are
    inclusive is detected; see `evals.metrics.spans.end_of`. An entity whose span is outside the text, or differs from
    the entity text in the file, is reported as a fault and remains a gold entity, which no response can match.

    Raises:
        DataError: the file has no such records, or its positions do not fit its texts.
    """
    records = [(line, number, record) for number, (line, record) in enumerate(json_records(path), start=1)]
    by_line = len({line for line, _, _ in records}) == len(records)
    wheres = [f"{path.name}:{line}" if by_line else f"{path.name}: record {number}" for line, number, _ in records]
    sentences = [_sentence(f"{path}:{line}", record) for line, _, record in records]
    end = end_of(str(path), [(sentence.text, span) for sentence in sentences for span in sentence.spans])
    faults: list[Fault] = []
    rows = [_row(where, sentence, end, faults) for where, sentence in zip(wheres, sentences, strict=True)]
    if not any(row["entities"] for row in rows):
        raise DataError(f"{path}: holds no entities; give records with text and entity_list")
    faults += repeated(zip(wheres, (row["text"] for row in rows), strict=True), "sentence given twice")
    return Sentences(rows, wheres, types_of(rows), end, faults, {str(path): sha256(path)})


def sampled(sentences: Sentences, limit: int, seed: int) -> Sentences:
    """Returns at most `limit` of the sentences, chosen by `seed`, in their original order."""
    if len(sentences.rows) <= limit:
        return sentences
    places = sorted(random.Random(seed).sample(range(len(sentences.rows)), limit))
    wheres = [sentences.wheres[place] for place in places]
    faults = [fault for fault in sentences.faults if fault.where in wheres]
    return replace(sentences, rows=[sentences.rows[place] for place in places], wheres=wheres, faults=faults)


def evaluate(model: Respondent, sentences: Sentences, settings: Settings) -> Metrics:
    """Evaluates greedy responses.

    Returns:
        The metrics of `ner_metrics`; `end`, the file's convention for end positions (see `read_ccks`); `faults`; and
        `prompt`, an example.
    """
    types, rows = sentences.types, sentences.rows
    chats: list[list[Message]] = [[{"role": "user", "content": question(row["text"], types)}] for row in rows]
    usable = [model.fits(chat, settings.entity_tokens) for chat in chats]
    asked = [chat for chat, fits in zip(chats, usable, strict=True) if fits]
    replies = iter(model.answer(asked, settings.entity_tokens, "named entities"))
    texts, faults = [], list(sentences.faults)
    for where, fits in zip(sentences.wheres, usable, strict=True):
        reply = next(replies) if fits else None
        if reply is None or not reply.text.strip():
            faults.append(Fault(TOO_LONG if reply is None else reply.problem or EMPTY, where))
        texts.append(reply.text if reply else "")
    scores = ner_metrics(rows, texts, types)
    return scores | {"end": sentences.end, "faults": fault_counts(faults), "prompt": chats[0][0]["content"]}


def _sentence(place: str, record: Any) -> _Sentence:
    if not isinstance(record, Mapping):
        raise DataError(f"{place}: not an object; give records with text and entity_list")
    text, listed = _first(record, _TEXTS, place), _first(record, _LISTS, place)
    if not isinstance(text, str):
        raise DataError(f"{place}: the text is {text!r:.40}; it must be a string")
    if not isinstance(listed, list):
        raise DataError(f"{place}: the entities are {listed!r:.40}; they must be a list")
    return _Sentence(text, [_span(f"{place}: entity {number}", given) for number, given in enumerate(listed, start=1)])


def _span(place: str, given: Any) -> Span:
    if not isinstance(given, Mapping):
        raise DataError(f"{place}: is {given!r:.40}; it must be an object with a type and positions")
    inner = given.get("entity_index", {})
    found = {**given, **(inner if isinstance(inner, Mapping) else {})}
    kind, start, end = (_first(found, names, place) for names in (_TYPES, _STARTS, _ENDS))
    stated = given.get("entity", given.get("text"))
    if not isinstance(kind, str):
        raise DataError(f"{place}: the type is {kind!r:.40}; it must be a string")
    for position in (start, end):
        if isinstance(position, bool) or not isinstance(position, int):
            raise DataError(f"{place}: a position is {position!r:.40}; it must be a whole number")
    if stated is not None and not isinstance(stated, str):
        raise DataError(f"{place}: the entity's text is {stated!r:.40}; it must be a string")
    return Span(kind, start, end, stated)


def _row(where: str, sentence: _Sentence, end: End, faults: list[Fault]) -> Row:
    entities = []
    for span in sentence.spans:
        found, stated, stop = span.between(sentence.text, end), span.stated, span.end + (end == "included")
        if not found or (stated is not None and stated != found):
            detail = f"{span.kind} {span.start}:{span.end} is {found!r}, but the file has {stated!r}"
            faults.append(Fault("span is not the entity", where, detail))
        text = stated if stated is not None else found
        entities.append({"type": span.kind, "start": span.start, "end": stop, "text": text})
    return {"text": sentence.text, "entities": entities}


def _first(record: Mapping[str, Any], names: tuple[str, ...], place: str) -> Any:
    for name in names:
        if name in record:
            return record[name]
    raise DataError(f"{place}: has no {' or '.join(names)}; it has {', '.join(map(str, record)) or 'no columns'}")
