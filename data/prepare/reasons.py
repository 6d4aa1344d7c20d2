"""Counts rejected records by kind of reason; each kind keeps its first record's position and full reason."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

MOST_KINDS: Final = 50
"""Maximum number of kinds; all further kinds are counted as one."""
OTHERS: Final = "other reasons, listed in _rejects.jsonl"

_PARTICULAR: Final = (
    (re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""), "'…'"),
    (re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.])"), "…"),
)


@dataclass
class Reasons:
    """Counts of rejected records.

    Attributes:
        counts: number of rejected records by kind, which is the reason without quoted texts and numbers.
        first: by kind, `FILE:LINE: reason` of its first record.
    """

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def count(self, where: str, reason: str, kind: str = "") -> None:
        """Counts one rejected record; its kind is derived from the reason unless it is given."""
        self._add(kind or kind_of_reason(reason), 1, f"{where}: {reason}")

    def add(self, other: Reasons) -> None:
        """Adds the counts of another part of the records."""
        for kind, count in other.counts.items():
            self._add(kind, count, other.first[kind])

    def total(self) -> int:
        """Returns the number of rejected records."""
        return self.counts.total()

    def _add(self, kind: str, count: int, first: str) -> None:
        if kind not in self.counts and len(self.counts) >= MOST_KINDS:
            kind = OTHERS
        self.counts[kind] += count
        self.first.setdefault(kind, first)


def kind_of_reason(reason: str) -> str:
    """Returns a reason without what is specific to one record: quoted texts and numbers."""
    for pattern, instead in _PARTICULAR:
        reason = pattern.sub(instead, reason)
    return reason
