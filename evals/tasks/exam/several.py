"""Which lettered options a written answer to a question with several right ones chooses."""

from __future__ import annotations

from collections.abc import Sequence

from evals.replies.letters import WEIGHTS, choices_of, clauses_of_reply


def chosen_options(answer: str, letters: str, options: Sequence[str]) -> frozenset[int]:
    """The indices of the options that a text chooses; empty if it states none, or different ones.

    The reply is read as `evals.replies.letters` reads it. Of the options that clauses call right, or that are listed alone, all
    are chosen; clauses that state the answer must state the same options.
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
