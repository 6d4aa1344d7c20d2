"""Parses which lettered option a response chooses.

The response is parsed clause by clause. Clauses that deny an option, ask, suppose, or give reasons choose nothing.
Clauses that state the answer (`答案是B`, `故选B`) have the highest weight, followed by clauses that consist of a letter
only and clauses that call an option correct. A correction (`不对，应该是C`) replaces everything stated before it. If two
different options have the same weight, neither is chosen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from evals.replies.clauses import Clause, clauses_of
from evals.replies.marks import normalized, plain, with_options_marked

WEIGHTS: Final = ("stated", "alone", "called right")


def chosen_option(answer: str, letters: str, options: Sequence[str]) -> int | None:
    """Returns the index of the option that a response chooses; None if it chooses none or more than one.

    An option's text counts as its letter. If no clause states an option, consists of one, or calls one correct, the
    choice is the only option whose text occurs in the response or whose letter starts it (`C: SAH`).

    Args:
        answer: the response.
        letters: the options' letters.
        options: the options' texts.
    """
    text = plain(answer)
    bare = [_bare(option) for option in options]
    if bare.count(text.rstrip("。.")) == 1:
        return bare.index(text.rstrip("。."))
    clauses = clauses_of_reply(answer, letters, options)
    for weight in WEIGHTS:
        chosen = "".join(dict.fromkeys("".join(choices_of(clauses, weight))))
        if chosen:
            return letters.find(chosen) if len(chosen) == 1 and chosen in letters else None
    if any(clause.corrects for clause in clauses):
        return None
    named = {letter for clause in clauses for letter in clause.letters}
    by_text = {letter for clause in clauses for letter in clause.texts}
    denied = {letter for clause in clauses for letter in clause.denied}
    headed = re.match(rf"([{letters}])\s*[:：.、)）]\s*\S", text)
    only = (named - denied) & (by_text | {headed[1]} if headed and named == {headed[1]} else by_text)
    if len(named - denied) != 1 or not only or any(clause.open for clause in clauses):
        return None
    return letters.index(only.pop())


def clauses_of_reply(answer: str, letters: str, options: Sequence[str]) -> list[Clause]:
    """Splits a response to a question with these options into clauses."""
    return clauses_of(with_options_marked(plain(answer), letters, [_bare(option) for option in options]))


def choices_of(clauses: Sequence[Clause], weight: str) -> list[str]:
    """Returns the letters of each clause with this weight after the last correction.

    Letters that a later clause retracts are removed from earlier clauses. A clause that adds to the previous one is
    merged with it.
    """
    found: list[str] = []
    concluded = False
    for clause in clauses:
        if clause.corrects:
            found, concluded = [], False
        if clause.weight != weight:
            if clause.retracts:
                found = ["".join(letter for letter in group if letter not in clause.denied) for group in found]
            continue
        if clause.concludes and not concluded:
            found, concluded = [], True
        if clause.adds and found:
            found[-1] += clause.letters
        else:
            found.append(clause.letters)
    return [group for group in found if group]


def _bare(option: str) -> str:
    return normalized(option).strip().rstrip("。.")
