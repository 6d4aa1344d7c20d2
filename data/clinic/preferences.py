"""Preference pairs and prompts for RLHF.

The chosen answer is good, and the rejected one has exactly one flaw. A reward model must not be able to rank pairs by
length alone, so for each flaw, the chosen answer has more characters in nine of twenty pairs (and more tokens in just
over half of them, since a truncated answer has fewer tokens per character). To balance lengths, either answer may have
sentences without content and state more or fewer of the facts.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Final

from data.chat import Message
from data.clinic import phrasing
from data.clinic.answers import FLAWS, Answer, Manners, cut, draw_answer, state_facts, wrong_values
from data.clinic.dialogues import Row, prompt_chat
from data.clinic.draws import draw_distinct
from data.clinic.knowledge import Condition
from data.clinic.split import Split

# Each answer has a preface and a filler sentence with probability 0.4 each, to balance lengths without hinting at the
# flaw.
PADDED: Final = Manners(preface=0.4, filler=0.4)
# A model of a few million parameters learns manners from a few hundred pairs, but facts only from thousands, and the
# more pairs about manners there are, the longer it relies on manners. So three of four training pairs are about facts.
# Held-out pairs have each flaw equally often.
TRAIN_CYCLE: Final = tuple(each for flaw in FLAWS if flaw != "wrong_fact" for each in (flaw, *("wrong_fact",) * 3))
HELDOUT_CYCLE: Final = FLAWS
LARGEST_EXCESS: Final = 10  # characters, for either side, so that a difference's size reveals as little as its sign
TRIES: Final = 200


def make_preferences(
    split: Split, seed: int, count: int, heldout: bool, known: frozenset[str] = frozenset()
) -> list[Row]:
    """Returns `count` rows of the preference table, with the flaws and the longer side in fixed proportions.

    Args:
        known: answers in the training tables; no chosen answer is one of them.
    """
    rng = random.Random(f"{seed}/preference/{heldout}")
    cycle = HELDOUT_CYCLE if heldout else TRAIN_CYCLE
    rows = []
    for index in range(count):
        chosen_longer = index // len(cycle) * 9 % 20 < 9
        rows.append(_draw_row(split, cycle[index % len(cycle)], chosen_longer, rng, heldout, known))
    rng.shuffle(rows)
    return rows


def make_prompts(split: Split, seed: int, count: int, heldout: bool) -> list[Row]:
    """Returns `count` different rows of the prompts table."""
    rng = random.Random(f"{seed}/prompts/{heldout}")

    def draw(_: int) -> tuple[str, Row]:
        messages = prompt_chat(split, rng, heldout)[0]
        return str(messages), {"prompt": messages}

    return draw_distinct(count, "prompts", draw)


def _draw_row(
    split: Split, flaw: str, chosen_longer: bool, rng: random.Random, heldout: bool, known: frozenset[str]
) -> Row:
    while True:  # draws another question if no pair of answers to this one has suitable lengths
        prompt, condition, attribute = prompt_chat(split, rng, heldout)
        for _ in range(TRIES):
            chosen = _draw(condition, attribute, condition.values(attribute), rng)
            rejected = _flawed(split, condition, attribute, flaw, rng)
            texts = chosen.text(), rejected.text()
            excess = (len(texts[0]) - len(texts[1])) * (1 if chosen_longer else -1)
            if 1 <= excess <= LARGEST_EXCESS and texts[0] not in known:
                return _row(prompt, texts, flaw)


def _draw(condition: Condition, attribute: str, values: tuple[str, ...], rng: random.Random) -> Answer:
    told = values[: rng.randint(min(2, len(values)), len(values))]
    return draw_answer(state_facts(condition.name, attribute, told, rng), PADDED, rng)


def _flawed(split: Split, condition: Condition, attribute: str, flaw: str, rng: random.Random) -> Answer:
    values = condition.values(attribute)
    if flaw == "wrong_fact":
        values = wrong_values(condition, attribute, split.knowledge, rng)
    answer = _draw(condition, attribute, values, rng)
    if flaw == "missing_advice":
        return replace(answer, safety="")
    if flaw == "rude":
        return replace(answer, opening=rng.choice(phrasing.RUDE))
    return cut(answer, rng) if flaw == "cut_off" else answer


def _row(prompt: list[Message], texts: tuple[str, str], flaw: str) -> Row:
    return {"prompt": prompt, "chosen": texts[0], "rejected": texts[1], "flaw": flaw}
