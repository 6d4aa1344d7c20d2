"""Parses named entities from a response, and computes micro precision, recall, and F1 against the gold entities."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from configs.errors import DataError
from data.files.json_text import parse
from evals.models.subject import Metrics

Entity = tuple[str, str]
"""An entity's type and text."""

Span = tuple[int, int]
"""Half-open character range: index of the first character, and of the character after the last."""

NOTHING = ("无", "没有", "没有实体", "无实体", "[]", "{}")
"""Responses that state that there are no entities."""

_ITEM = re.compile(r"[、，,]")
_PART = re.compile(r"[;；\n]")


class Gold(NamedTuple):
    """A gold entity of a sentence `text`: `text[start:end]`."""

    type: str
    start: int
    end: int


def read_entities(answer: str, types: Sequence[str]) -> list[Entity] | None:
    """Parses the entities in a response.

    Accepted formats are `类型:甲、乙;类型:丙`, with ASCII or Chinese punctuation, on one or several lines, optionally with
    list numbers or dashes; and JSON: `{"类型": ["甲"]}` or `[{"type": "类型", "text": "甲"}]`. Entities whose type is not in
    `types` are ignored.

    Returns:
        The distinct entities, in order; None if the response lists none and does not state that there are none.
    """
    text = answer.strip()
    found = _from_json(text, types)
    if found is None:
        found = _from_lines(text, types)
    if not found and text.rstrip("。.") not in NOTHING:
        return None
    return list(dict.fromkeys(found))


def _from_lines(text: str, types: Sequence[str]) -> list[Entity]:
    found = []
    for part in _PART.split(text.replace("：", ":")):
        kind, colon, names = part.strip().lstrip("-*•·0123456789.) ").partition(":")
        if colon and kind.strip() in types:
            items = (item.strip(" 。.") for item in _ITEM.split(names))
            found += [(kind.strip(), item) for item in items if item and item not in NOTHING]
    return found


def _from_json(text: str, types: Sequence[str]) -> list[Entity] | None:
    """Returns the entities of the JSON in a text; None if it contains no JSON object or list."""
    match = re.search(r"[\[{].*[\]}]", text, re.DOTALL)
    try:
        value = parse(match[0]) if match else None
    except DataError:
        return None
    pairs: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        pairs = [
            (kind, name) for kind, names in value.items() for name in (names if isinstance(names, list) else [names])
        ]
    elif isinstance(value, list):
        pairs = [(item.get("type"), item.get("text")) for item in value if isinstance(item, dict)]
    else:
        return None
    return [(kind, name.strip()) for kind, name in pairs if kind in types and isinstance(name, str) and name.strip()]


def micro_scores(found: Sequence[Iterable[Entity]], gold: Sequence[Iterable[Entity]]) -> Metrics:
    """Computes `precision`, `recall`, and `f1` over all entities of all sentences, and the counts behind them.

    An entity is correct if its sentence has a gold entity of the same type and text; each gold entity is matched at
    most once. Precision is 0 if no entities were found, recall is 0 if there are no gold entities.

    Args:
        found: for each sentence, the predicted entities.
        gold: for each sentence, the gold entities.

    Returns:
        `precision`, `recall`, `f1`, and the counts `right`, `found`, and `gold`.
    """
    pairs = [(Counter(one), Counter(other)) for one, other in zip(found, gold, strict=True)]
    right = sum((one & other).total() for one, other in pairs)
    n_found = sum(one.total() for one, _ in pairs)
    n_gold = sum(other.total() for _, other in pairs)
    return {**_scores(right, n_found, right, n_gold), "right": right, "found": n_found, "gold": n_gold}


def overlap_scores(texts: Sequence[str], found: Sequence[Iterable[Entity]], gold: Sequence[Iterable[Gold]]) -> Metrics:
    """Computes micro scores for which an entity is correct if it overlaps a gold entity of its type.

    `precision` is the share of predicted entities that overlap a gold entity of their type by at least one character,
    and `recall` the share of gold entities that a predicted entity of their type overlaps. A predicted entity is
    located at every occurrence of its text in the sentence. `absent` counts predicted entities whose text does not
    occur in the sentence; they overlap nothing.

    Args:
        texts: the sentences.
        found: for each sentence, the predicted entities.
        gold: for each sentence, the gold entities.

    Returns:
        `precision`, `recall`, `f1`, and `absent`.
    """
    touching = n_found = touched = n_gold = absent = 0
    for text, entities, spans in zip(texts, found, gold, strict=True):
        listed = [(kind, _places(name, text)) for kind, name in entities]
        known = list(spans)
        absent += sum(not places for _, places in listed)
        touching += sum(any(g.type == kind and _touch(places, g) for g in known) for kind, places in listed)
        touched += sum(any(g.type == kind and _touch(places, g) for kind, places in listed) for g in known)
        n_found, n_gold = n_found + len(listed), n_gold + len(known)
    return {**_scores(touching, n_found, touched, n_gold), "absent": absent}


def _scores(right_found: int, n_found: int, right_gold: int, n_gold: int) -> Metrics:
    precision = right_found / n_found if n_found else 0.0
    recall = right_gold / n_gold if n_gold else 0.0
    f1 = 2 * precision * recall / (precision + recall) if right_found and right_gold else 0.0
    return {"precision": precision, "recall": recall, "f1": f1}


def _places(name: str, text: str) -> list[Span]:
    return [(start, start + len(name)) for start in range(len(text)) if text.startswith(name, start)]


def _touch(places: Iterable[Span], gold: Gold) -> bool:
    return any(start < gold.end and gold.start < end for start, end in places)
