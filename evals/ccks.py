"""Named entities in files as CCKS-2019 has them: sentences with typed spans, JSON."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.chat import Message
from data.durable import sha256
from data.tables import DataError
from evals.faults import EMPTY, TOO_LONG, Fault, fault_counts, repeated
from evals.ner import ner_metrics, question, types_of
from evals.respondent import Respondent
from evals.subject import Metrics, Row, Settings

_TEXTS = ("text", "originalText")
_LISTS = ("entity_list", "entities")
_TYPES = ("entity_type", "label_type", "type")
_STARTS = ("start", "start_pos", "start_idx", "begin")
_ENDS = ("end", "end_pos", "end_idx")


@dataclass(frozen=True)
class Sentences:
    """Rows with `text` and `entities`, as the sample clinic's NER table has them, and the place of each."""

    rows: list[Row]
    wheres: list[str]
    faults: list[Fault] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 by path, of every file that was read."""


def read_ccks(path: Path) -> Sentences:
    """A JSON list, or JSON lines, of `{"text", "entity_list": [{"entity_type", "entity_index": {"begin", "end"}}]}`.

    Offsets count characters, the end not included; they may also stand in the entity itself, and CCKS's own
    `originalText` and `entities` with `label_type`, `start_pos`, `end_pos` are read as well. An entity whose span is not
    in the text, or not the `entity` that is told with it, is named and stays in the gold: nothing can match it.

    Raises:
        DataError: no such records.
    """
    content = path.read_text(encoding="utf-8-sig")
    try:
        if content.lstrip().startswith("["):
            records = [(number, record) for number, record in enumerate(json.loads(content), start=1)]
        else:
            lines = enumerate(content.splitlines(), start=1)
            records = [(number, json.loads(line)) for number, line in lines if line.strip()]
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: not JSON ({error.msg}, line {error.lineno}); write a list or an object a line"
        ) from error
    rows, wheres, faults = [], [], list[Fault]()
    for number, record in records:
        where = f"{path.name}:{number}"
        rows.append(_row(f"{path}:{number}", where, record, faults))
        wheres.append(where)
    if not any(row["entities"] for row in rows):
        raise DataError(f"{path}: holds no entities; give records with text and entity_list")
    faults += repeated(zip(wheres, (row["text"] for row in rows), strict=True), "sentence given twice")
    return Sentences(rows, wheres, faults, {str(path): sha256(path)})


def sampled(sentences: Sentences, limit: int, seed: int) -> Sentences:
    """At most `limit` of the sentences, chosen by `seed`, in their order."""
    if len(sentences.rows) <= limit:
        return sentences
    places = sorted(random.Random(seed).sample(range(len(sentences.rows)), limit))
    wheres = [sentences.wheres[place] for place in places]
    faults = [fault for fault in sentences.faults if fault.where in wheres]
    return Sentences([sentences.rows[place] for place in places], wheres, faults, sentences.files)


def evaluate(model: Respondent, sentences: Sentences, settings: Settings) -> Metrics:
    """The scores of `ner_metrics` for the model's greedy answers."""
    types, rows = types_of(sentences.rows), sentences.rows
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
    return ner_metrics(rows, texts) | {"faults": fault_counts(faults), "prompt": chats[0][0]["content"]}


def _row(place: str, where: str, record: Any, faults: list[Fault]) -> Row:
    if not isinstance(record, Mapping):
        raise DataError(f"{place}: not an object; give records with text and entity_list")
    text = _first(record, _TEXTS, place)
    entities = []
    for given in _first(record, _LISTS, place):
        span = {**given, **given.get("entity_index", {})}
        kind, start, end = (_first(span, names, place) for names in (_TYPES, _STARTS, _ENDS))
        told = given.get("entity", given.get("text"))
        inside = isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(text)
        found = text[start:end] if inside else ""
        if not inside or (told is not None and told != found):
            faults.append(Fault("span is not the entity", where, f"{kind} {start}:{end} is {found!r}, told {told!r}"))
        entities.append({"type": kind, "start": start, "end": end, "text": told if told is not None else found})
    return {"text": text, "entities": entities}


def _first(record: Mapping[str, Any], names: tuple[str, ...], place: str) -> Any:
    for name in names:
        if name in record:
            return record[name]
    raise DataError(f"{place}: has no {' or '.join(names)}")
