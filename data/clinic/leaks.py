"""Checks that no held-out data is in any training text.

Two rules apply. No held-out text (a document, question, opening question, reference, chosen answer, or NER sentence) is
part of a training text. No fine-tuning, preference, or prompt record names a held-out pair's condition together with
one of the pair's values, so that the pair can be known only from pretraining.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data.clinic.split import Split
from data.tables import DataError

Tables = Mapping[str, Sequence[Mapping[str, Any]]]  # rows by table name, such as "sft.train"
_SEPARATOR = "\0"  # does not occur in any text, so no match spans two texts


def check_leaks(tables: Tables, split: Split) -> None:
    """Checks all tables of a clinic.

    Raises:
        DataError: a held-out text or pair is in a training text; the message names both.
    """
    training = {name: [_text(row) for row in rows] for name, rows in tables.items() if name.endswith(".train")}
    for name, texts in training.items():
        whole = _SEPARATOR.join(texts)
        for heldout, text in _heldout_texts(tables):
            if text in whole:
                raise DataError(f"{name}: contains a text of {heldout}: {text!r}; hold out its phrasing or its pair")
    for name, texts in training.items():
        if not name.startswith("pretrain"):
            _check_pairs(name, texts, split)


def _check_pairs(name: str, texts: Iterable[str], split: Split) -> None:
    pairs = split.pairs(heldout=True)
    for text in texts:
        for condition, attribute in pairs:
            if condition.name in text and any(value in text for value in condition.values(attribute)):
                raise DataError(f"{name}: states the held-out pair ({condition.name}, {attribute}): {text!r}")


def _text(row: Mapping[str, Any]) -> str:
    """Returns all text of a training row."""
    parts = [row["text"]] if "text" in row else []
    parts += [message["content"] for message in row.get("messages", row.get("prompt", ()))]
    parts += [row[column] for column in ("chosen", "rejected") if column in row]
    return "\n".join(parts)


def _heldout_texts(tables: Tables) -> Iterable[tuple[str, str]]:
    """Yields all text that must be new to a model, as `(table, text)`.

    For a chat, this is the opening question: later questions ("那吃什么药好？") and short answers occur in all chats.
    """
    for name, rows in tables.items():
        if not name.endswith(".heldout"):
            continue
        for row in rows:
            for column in ("text", "question", "reference", "chosen"):
                if column in row:
                    yield name, row[column]
            for message in row.get("messages", row.get("prompt", ())):
                if message["role"] == "user":
                    yield name, message["content"]
                    break
