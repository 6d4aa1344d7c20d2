"""What is wrong with items of a benchmark: named and counted, while the item stays in the denominator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evals.models.subject import Metrics

MOST_NAMED = 50

EMPTY = "the model wrote nothing"
TOO_LONG = "longer than the context"
UNTOLD = "no option's log-probability was told"


@dataclass(frozen=True)
class Fault:
    """One thing wrong with one item."""

    kind: str
    """What counts as the same, e.g. `option missing`."""
    where: str
    """FILE:LINE, or the item's number."""
    detail: str = ""


def fault_counts(faults: Sequence[Fault]) -> Metrics:
    """`counts` by kind, and the first of them `named`, a line each."""
    lines = [f"{fault.where}: {fault.kind}{f': {fault.detail}' if fault.detail else ''}" for fault in faults]
    return {
        "counts": dict(sorted(Counter(fault.kind for fault in faults).items())),
        "named": lines[:MOST_NAMED],
    }


def repeated(texts: Iterable[tuple[str, str]], kind: str) -> list[Fault]:
    """A fault for each (place, text) whose text came before, white space aside."""
    first: dict[str, str] = {}
    faults = []
    for where, text in texts:
        key = "".join(text.split())
        if key in first:
            faults.append(Fault(kind, where, f"also at {first[key]}"))
        first.setdefault(key, where)
    return faults
