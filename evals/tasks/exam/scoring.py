"""Computes accuracies with intervals from chosen options, and whether a model chooses by content or by letter."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import fmean

from data.choices.question import LETTERS
from evals.metrics.intervals import group_interval, mean_interval
from evals.models.subject import Metrics
from evals.tasks.exam.questions import Question

FAVORITE = 0.5
"""A letter with at least this share of all choices under rotation is reported as the model's favorite."""

Choice = int | None
"""Index of the chosen option in the order of the prompt; None for no choice."""

Choices = frozenset[int]
"""Indices of all options that a response chooses; empty for no choice."""


def accuracies(questions: Sequence[Question], choices: Sequence[Choices]) -> Metrics:
    """Computes accuracies.

    A question with several correct options counts as correct if exactly these are chosen. Questions without a choice
    and unusable questions count as wrong.

    Args:
        questions: the questions.
        choices: for each question, the chosen options.

    Returns:
        - `accuracy` over all questions (micro) and `macro` over subjects, each with a 95% interval; `by_subject`;
        - `several_answers`: accuracy on questions with several correct options, if there are any;
        - `chance`: expected accuracy of guessing;
        - `letters` and `answers`: number of times each letter was chosen, and was correct;
        - `no_answer`: number of usable questions without a choice;
        - `n`: number of questions.
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
    """Returns the probability that a guess is correct; guesses are an option, or a set of two or more options."""
    count = len(question.options)
    return 1 / (2**count - count - 1) if question.has_several_answers else 1 / count


def rotation_scores(rotations: Sequence[Sequence[Question]], choices: Sequence[Sequence[Choice]]) -> Metrics:
    """Measures position bias from questions that were each asked with their options in every rotation.

    Args:
        rotations: for each question, its rotations by 0, 1, ... places.
        choices: for each question, the choice in each rotation.

    Returns:
        - `accuracy`: over all rotations; a model that always chooses the same letter gets chance accuracy;
        - `always_right`: share of questions that are answered correctly in every rotation;
        - `same_option`: share of questions for which the same option was chosen in every rotation;
        - `letters`: share of each letter among all choices; 1 / number of options without a preference;
        - `distance`: total variation distance of these shares from uniform, 0 to 1 - 1 / number of options;
        - `favorite`: 1 if a letter's share is at least `FAVORITE`;
        - `n`: number of questions.
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
        "favorite": int(max(shares, default=0.0) >= FAVORITE),
        "n": len(rights),
    }


def likeliest(values: Sequence[float]) -> Choice:
    """Returns the index of the highest log-probability (on ties, the first); None if `values` is empty."""
    return max(range(len(values)), key=values.__getitem__) if values else None


def _tally(choices: Sequence[int], width: int) -> dict[str, int]:
    counts = Counter(choices)
    return {LETTERS[place]: counts[place] for place in range(width)}
