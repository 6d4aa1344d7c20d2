"""Faults of benchmark items, which are listed and counted; items with a fault remain in the denominator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evals.models.subject import Metrics

MOST_NAMED = 50

EMPTY = "the model wrote nothing"
TOO_LONG = "longer than the context"
UNTOLD = "no option's log-probability was returned"


@dataclass(frozen=True)
class Fault:
    """One fault of one item."""

    kind: str
    """The category by which faults are counted, e.g. `option missing`."""
    where: str
    """The item's location: FILE:LINE, or its number."""
    detail: str = ""


def fault_counts(faults: Sequence[Fault]) -> Metrics:
    """Returns `counts` by kind, and `named`, the first `MOST_NAMED` faults as one line each."""
    lines = [f"{fault.where}: {fault.kind}{f': {fault.detail}' if fault.detail else ''}" for fault in faults]
    return {
        "counts": dict(sorted(Counter(fault.kind for fault in faults).items())),
        "named": lines[:MOST_NAMED],
    }


def repeated(texts: Iterable[tuple[str, str]], kind: str) -> list[Fault]:
    """Returns a fault for each duplicate text.

    Args:
        texts: (location, text) of each item; texts are compared without whitespace.
        kind: the kind of the faults.
    """
    first: dict[str, str] = {}
    faults = []
    for where, text in texts:
        key = "".join(text.split())
        if key in first:
            faults.append(Fault(kind, where, f"also at {first[key]}"))
        first.setdefault(key, where)
    return faults
