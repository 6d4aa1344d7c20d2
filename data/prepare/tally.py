"""Counts of what happened to records and rows; the tallies of pieces are small and merged in the pieces' order."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from data.prepare.reasons import Reasons

EXAMPLES: Final = 3
PAIRS: Final = 10  # maximum number of examples that also show another row
SHOWN: Final = 300  # maximum number of characters of an example
BINS: Final = 40
"""Bins of the length histogram: bin b holds rows of 2^(b/2) up to 2^((b+1)/2) characters."""


def length_bin(characters: int) -> int:
    """Returns the bin of a text of this many characters."""
    return min(BINS - 1, int(2 * math.log2(max(characters, 1))))


@dataclass
class Tally:
    """Counts of what happened to records and rows.

    Attributes:
        records: records read, by source.
        rows: output rows, by source.
        bad: records that cannot be used, by kind of reason.
        removed: rows that a step removed, by step.
        changed: rows that a step changed, by step.
        overlap: overlap with evaluation items: `passages` cut, `rows` removed, and the characters of both.
        masked: personal data masked, by kind.
        mapped: records that have a column of `--map`, by column.
        labels: sections of classical texts whose label was removed, by source and label.
        cut: documents that were split into several.
        more: rows beyond one per record, from records that hold several and documents that were split.
        characters: characters of output rows.
        lengths: histogram of output rows by `length_bin`.
        examples: a few examples of each step, `{"where", "why", "text", "kept"}`, by step; `kept` is the text of the
            row that the example repeats, if any.
    """

    records: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    bad: Reasons = field(default_factory=Reasons)
    removed: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    overlap: Counter[str] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)
    mapped: Counter[str] = field(default_factory=Counter)
    labels: dict[str, Counter[str]] = field(default_factory=dict)
    cut: int = 0
    more: int = 0
    characters: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        """Adds the counts of `other`."""
        self.bad.add(other.bad)
        for name in ("records", "rows", "removed", "changed", "overlap", "lengths", "masked", "mapped"):
            getattr(self, name).update(getattr(other, name))
        for source, labels in other.labels.items():
            self.labels.setdefault(source, Counter()).update(labels)
        self.cut += other.cut
        self.more += other.more
        self.characters += other.characters
        for step, ones in other.examples.items():
            for one in ones:
                self.show(step, **one)

    def show(self, step: str, where: str, why: str, text: str, kept: str = "") -> None:
        """Keeps an example of a step unless there are enough already."""
        ones = self.examples.setdefault(step, [])
        if len(ones) < (PAIRS if kept else EXAMPLES):
            ones.append({"where": where, "why": why, "text": shortened(text), "kept": shortened(kept)})

    def keep(self, source: str, characters: int) -> None:
        """Counts an output row."""
        self.rows[source] += 1
        self.characters += characters
        self.lengths[length_bin(characters)] += 1

    def drop(self, source: str, characters: int) -> None:
        """Undoes `keep` for a row that a later step removes."""
        self.rows[source] -= 1
        self.characters -= characters
        self.lengths[length_bin(characters)] -= 1

    def as_json(self) -> dict[str, Any]:
        """Returns the counts in the form that `_report.json` has."""
        return {
            "records": sum(self.records.values()),
            "rows": sum(self.rows.values()),
            "characters": self.characters,
            "bad": dict(sorted(self.bad.counts.items())),
            "first_bad": dict(sorted(self.bad.first.items())),
            "removed": dict(sorted(self.removed.items())),
            "changed": dict(sorted(self.changed.items())),
            "masked": dict(sorted(self.masked.items())),
            "section_labels": {source: dict(sorted(labels.items())) for source, labels in sorted(self.labels.items())},
            "cut": self.cut,
            "more": self.more,
            "sources": {name: {"records": count, "rows": self.rows[name]} for name, count in self.records.items()},
            "lengths": {str(key): count for key, count in sorted(self.lengths.items()) if count},
            "examples": {step: self.examples[step] for step in sorted(self.examples)},
        }


def shortened(text: str) -> str:
    """Returns the first `SHOWN` characters of a text, followed by an ellipsis if it is longer."""
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
