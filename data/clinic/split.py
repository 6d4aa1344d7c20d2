"""Chooses the held-out (condition, attribute) pairs by seed; the held-out phrasings are in `phrasing.py`.

A held-out pair's facts are in the pretraining text, since a model could not know them otherwise, but no fine-tuning
dialogue, preference pair, or prompt asks for them or states them. Answering about them requires knowledge, not
imitation.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from data.clinic.knowledge import ATTRIBUTES, Condition, Knowledge
from data.tables import DataError

HELDOUT_SHARE: Final = 0.12  # of all pairs
FEWEST: Final = 20  # minimum number of conditions
FEWEST_DEPARTMENTS: Final = 6


@dataclass(frozen=True)
class Split:
    """A knowledge base and the pairs of (condition name, attribute) held out of everything but pretraining."""

    knowledge: Knowledge
    heldout: frozenset[tuple[str, str]]

    def pairs(self, heldout: bool) -> list[tuple[Condition, str]]:
        """Returns the held-out pairs, or the others, in the base's order."""
        return self._pairs[heldout]

    @cached_property
    def _pairs(self) -> dict[bool, list[tuple[Condition, str]]]:
        every = [(c, attribute) for c in self.knowledge.conditions for attribute in ATTRIBUTES]
        return {side: [(c, a) for c, a in every if self.is_open(c, a) != side] for side in (False, True)}

    def is_open(self, condition: Condition, attribute: str) -> bool:
        """Returns whether training may ask for and state this attribute of this condition."""
        return (condition.name, attribute) not in self.heldout


def make_split(knowledge: Knowledge, seed: int) -> Split:
    """Holds out `HELDOUT_SHARE` of the pairs: the same number of each attribute, and at most one of each condition.

    Raises:
        DataError: the base is too small to hold out two pairs of each attribute and to draw wrong answers from.
    """
    conditions = list(knowledge.conditions)
    if len(conditions) < FEWEST or len(knowledge.pool("department")) < FEWEST_DEPARTMENTS:
        raise DataError(
            f"the knowledge base has {len(conditions)} conditions in {len(knowledge.pool('department'))} departments; "
            f"a clinic needs at least {FEWEST} in {FEWEST_DEPARTMENTS}"
        )
    random.Random(f"{seed}/split").shuffle(conditions)
    each = round(len(conditions) * HELDOUT_SHARE)
    chosen = {
        (condition.name, attribute)
        for index, attribute in enumerate(ATTRIBUTES)
        for condition in conditions[index * each : (index + 1) * each]
    }
    return Split(knowledge, frozenset(chosen))
