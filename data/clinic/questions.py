"""Evaluation questions: four-choice questions and open questions with references. All are held out."""

from __future__ import annotations

import random
from typing import Final

from data.clinic import phrasing
from data.clinic.answers import GOOD, draw_answer, state_facts
from data.clinic.dialogues import CHOICE_ATTRIBUTES, Row, draw_pair
from data.clinic.draws import draw_distinct
from data.clinic.knowledge import Condition
from data.clinic.pretraining import LABELS
from data.clinic.split import Split
from data.tables import DataError

OPTIONS: Final = 4


def make_choices(split: Split, seed: int, count: int) -> list[Row]:
    """Returns `count` rows of the choice table, each with one correct option and three that other conditions have.

    The position of the correct option is uniformly distributed. The phrasings are held out; nearly half of the
    questions are about held-out pairs.
    """
    rng = random.Random(f"{seed}/choice")

    def draw(drawn: int) -> tuple[tuple[str, str], Row]:
        condition, attribute = draw_pair(split, rng, True, CHOICE_ATTRIBUTES)
        question = rng.choice(phrasing.CHOICE_QUESTIONS[attribute].heldout).format(name=condition.name)
        value = rng.choice(condition.values(attribute))
        answer = drawn % OPTIONS
        options = _distractors(split, condition, attribute, rng)
        options.insert(answer, value)
        row = {"question": question, "options": options, "answer": answer, "subject": LABELS[attribute]}
        return (question, value), row

    rows = draw_distinct(count, "choice questions", draw)
    rng.shuffle(rows)
    return rows


def make_open(split: Split, seed: int, count: int) -> list[Row]:
    """Returns `count` open questions with reference answers.

    Only held-out (condition, attribute) pairs are used, so no reference answer occurs in the training data.

    Raises:
        DataError: there are fewer different questions than `count`.
    """
    rng = random.Random(f"{seed}/open")
    every = [(c, a, t) for c, a in split.pairs(heldout=True) for t in phrasing.QUESTIONS[a].heldout]
    if count > len(every):
        raise DataError(f"only {len(every)} different open questions can be made, not {count}; ask for fewer")
    rows = []
    for condition, attribute, template in rng.sample(every, count):
        facts = state_facts(condition.name, attribute, condition.values(attribute), rng)
        question = template.format(name=condition.name)
        rows.append({"question": question, "reference": draw_answer(facts, GOOD, rng).text()})
    return rows


def _distractors(split: Split, condition: Condition, attribute: str, rng: random.Random) -> list[str]:
    true = condition.values(attribute)
    return rng.sample([v for v in split.knowledge.pool(attribute) if v not in true], OPTIONS - 1)
