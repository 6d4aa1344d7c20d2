"""From the options that a model chose to accuracies with intervals, and to whether it chose by content or by letter."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import fmean

from data.choices.question import LETTERS
from evals.metrics.intervals import group_interval, mean_interval
from evals.models.subject import Metrics
from evals.tasks.exam.questions import Question

FAVOURITE = 0.5
"""From this share of all choices, under rotation, one letter is called the model's favourite."""

Choice = int | None
"""Index of an option in the order in which it was asked; None is no answer."""

Choices = frozenset[int]
"""Indices of all options that an answer chooses; empty is no answer."""


def accuracies(questions: Sequence[Question], choices: Sequence[Choices]) -> Metrics:
    """`accuracy` over all questions (micro), `macro` over subjects, each with a 95 % interval, and `by_subject`.

    A question with several right options is answered right by all of them and no other; `several_answers` has the accuracy
    on these alone, where there are some. No answer and an unusable question count as wrong. `chance` is what guessing
    gives; `letters` counts the choices, `answers` the right ones, `no_answer` the questions asked without one.
    """
    rights: dict[str, list[float]] = defaultdict(list)
    several: list[float] = []
    for question, choice in zip(questions, choices, strict=True):
        right = float(not question.fault and choice == question.rights)
        rights[question.subject].append(right)
        if question.has_several_answers:
            several.append(right)
    every = [right for subject in rights.values() for right in subject]
    usable = [(q, choice) for q, choice in zip(questions, choices, strict=True) if not q.fault]
    width = max((len(q.options) for q in questions), default=0)
    return {
        "accuracy": fmean(every),
        "accuracy_interval": mean_interval(every),
        "macro": fmean(fmean(subject) for subject in rights.values()),
        "macro_interval": group_interval(rights),
        "chance": fmean(_chance(q) for q, _ in usable) if usable else 0.0,
        "by_subject": {
            name: {"accuracy": fmean(values), "accuracy_interval": mean_interval(values), "n": len(values)}
            for name, values in sorted(rights.items())
        },
        **({"several_answers": {"accuracy": fmean(several), "n": len(several)}} if several else {}),
        "letters": _tally([place for _, choice in usable for place in choice], width),
        "answers": _tally([place for q, _ in usable for place in q.rights], width),
        "no_answer": sum(not choice for _, choice in usable),
        "n": len(questions),
    }


def _chance(question: Question) -> float:
    """That a guess is right: among the options, or among the sets of two and more where several are right."""
    count = len(question.options)
    return 1 / (2**count - count - 1) if question.has_several_answers else 1 / count


def rotation_scores(rotations: Sequence[Sequence[Question]], choices: Sequence[Sequence[Choice]]) -> Metrics:
    """What the choices say about position, from every question asked with its options in every rotation.

    Args:
        rotations: for each question its rotations, by 0, 1, ... places.
        choices: the choice in each of them.

    Returns:
        `accuracy`: over all rotations, where a favourite letter earns chance and no more; `always_right`: questions right
        in every rotation; `same_option`: questions where every rotation got the same option; `letters`: the share of
        each letter among all choices, which is 1 / options without a preference; `distance`: total variation distance
        of these from even shares, 0 to 1 - 1 / options; `favourite`: 1 if a letter has at least `FAVOURITE` of them.
    """
    rights, same = [], []
    letters: Counter[int] = Counter()
    for asked, chosen in zip(rotations, choices, strict=True):
        rights.append([choice == question.answer for question, choice in zip(asked, chosen, strict=True)])
        options = {None if c is None else q.options[c] for q, c in zip(asked, chosen, strict=True)}
        same.append(len(options) == 1 and None not in options)
        letters.update(choice for choice in chosen if choice is not None)
    width = max((len(asked[0].options) for asked in rotations), default=0)
    total = letters.total()
    shares = [letters[place] / total if total else 0.0 for place in range(width)]
    return {
        "accuracy": fmean(fmean(own) for own in rights) if rights else 0.0,
        "always_right": fmean(all(own) for own in rights) if rights else 0.0,
        "same_option": fmean(same) if same else 0.0,
        "letters": {LETTERS[place]: share for place, share in enumerate(shares)},
        "distance": sum(abs(share - 1 / width) for share in shares) / 2 if total else 0.0,
        "favourite": int(max(shares, default=0.0) >= FAVOURITE),
        "n": len(rights),
    }


def likeliest(values: Sequence[float]) -> Choice:
    """The option of the highest log-probability, the first one of equals; None where nothing is known of any."""
    return max(range(len(values)), key=values.__getitem__) if values else None


def _tally(choices: Sequence[int], width: int) -> dict[str, int]:
    counts = Counter(choices)
    return {LETTERS[place]: counts[place] for place in range(width)}
