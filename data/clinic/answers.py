"""Builds a doctor's answer from parts, with any of four flaws.

A good answer has a polite opening, the facts, and safety advice, and is complete. Preference pairs contrast it with
four flaws: facts of another condition, no safety advice, a rude opening, and truncation.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Final

from data.clinic import phrasing
from data.clinic.knowledge import Condition, Knowledge

FLAWS: Final = ("wrong_fact", "missing_advice", "rude", "cut_off")


@dataclass(frozen=True)
class Answer:
    """An answer's parts in order; a part that is left out is empty."""

    opening: str
    preface: str
    facts: str
    filler: str
    safety: str
    cut: int = 0  # characters missing from the end

    def text(self) -> str:
        """Returns the whole answer."""
        whole = f"{self.opening}{self.preface}{self.facts}。{self.filler}{self.safety}"
        return whole[: len(whole) - self.cut]


@dataclass(frozen=True)
class Manners:
    """The probability, over all answers, of each optional part and each flaw."""

    rude: float = 0.0
    missing_advice: float = 0.0
    cut_off: float = 0.0
    preface: float = 0.0
    filler: float = 0.0


GOOD: Final = Manners()
# Resembles answers on the web. Two frequent, independent flaws make the answers' rewards vary. About a fifth of the
# answers have neither flaw, so that PPO, which can only reinforce what it samples, still samples good answers.
CRAWLED: Final = Manners(rude=0.35, missing_advice=0.65, cut_off=0.05, preface=0.08, filler=0.12)


def join(values: tuple[str, ...] | list[str], attribute: str) -> str:
    """Joins values as in prose: advice, which consists of short sentences, with `，`, other values with `、`."""
    return ("，" if attribute == "advice" else "、").join(values)


def state_facts(name: str, attribute: str, values: tuple[str, ...] | list[str], rng: random.Random) -> str:
    """Returns the sentence, without its full stop, that states the `values` of a condition's attribute."""
    return rng.choice(phrasing.FACTS[attribute]).format(name=name, values=join(values, attribute))


def draw_answer(facts: str, manners: Manners, rng: random.Random) -> Answer:
    """Returns an answer that states `facts`, with parts and flaws drawn from `manners`."""
    answer = Answer(
        opening=rng.choice(phrasing.RUDE if rng.random() < manners.rude else phrasing.POLITE),
        preface=rng.choice(phrasing.PREFACES) if rng.random() < manners.preface else "",
        facts=facts,
        filler=rng.choice(phrasing.FILLERS) if rng.random() < manners.filler else "",
        safety="" if rng.random() < manners.missing_advice else rng.choice(phrasing.SAFETY),
    )
    return cut(answer, rng) if rng.random() < manners.cut_off else answer


def cut(answer: Answer, rng: random.Random) -> Answer:
    """Truncates an answer in the last third of its facts or later, never directly after a punctuation mark."""
    kept = len(answer.opening + answer.preface) + len(answer.facts) * 2 // 3
    longest = len(answer.text()) - kept
    while True:
        broken = replace(answer, cut=rng.randint(2, longest))
        if broken.text()[-1] not in "。，：":
            return broken


def wrong_values(condition: Condition, attribute: str, knowledge: Knowledge, rng: random.Random) -> tuple[str, ...]:
    """Returns the attribute's values of another condition that shares none of them with this one."""
    true = set(condition.values(attribute))
    others = [c.values(attribute) for c in knowledge.conditions if true.isdisjoint(c.values(attribute))]
    return rng.choice(others)
