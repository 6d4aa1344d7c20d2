"""Parses which lettered options a response chooses, for questions with several correct options."""

from __future__ import annotations

from collections.abc import Sequence

from evals.replies.letters import WEIGHTS, choices_of, clauses_of_reply


def chosen_options(answer: str, letters: str, options: Sequence[str]) -> frozenset[int]:
    """Returns the indices of the options that a response chooses; empty if it chooses none or contradicts itself.

    Clauses are parsed as in `evals.replies.letters`. Clauses that state the answer must all state the same options. If
    no clause states it, the chosen options are those in clauses that consist of letters only; if there are none, those
    that a clause calls correct; if there are none, those whose text the response contains, unless it also names or
    denies other options.

    Args:
        answer: the response.
        letters: the options' letters.
        options: the options' texts.
    """
    clauses = clauses_of_reply(answer, letters, options)
    for weight in WEIGHTS:
        groups = choices_of(clauses, weight)
        if not groups:
            continue
        if weight == "stated" and len({frozenset(group) for group in groups}) > 1:
            return frozenset()
        chosen = {letter for group in groups for letter in group}
        return frozenset(map(letters.index, chosen)) if chosen <= set(letters) else frozenset()
    if any(clause.open or clause.corrects for clause in clauses):
        return frozenset()
    texts = {letter for clause in clauses for letter in clause.texts}
    denied = {letter for clause in clauses for letter in clause.denied}
    named = {letter for clause in clauses for letter in clause.letters}
    return frozenset(map(letters.index, texts)) if texts == named and not denied else frozenset()
