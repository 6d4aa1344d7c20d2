"""Converts a record of two answers to one prompt, in any layout, to a preference pair."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from data.choices.columns import normalized
from data.prepare.options import Options
from data.prepare.schemas.chats import ANSWERS, CHATS, Row, chat_of, is_chat
from data.prepare.schemas.columns import renamed
from data.prepare.schemas.turns import Messages, transcript_of, turns_of
from data.prepare.schemas.values import number, optional_string, string
from data.tables import DataError

SIDES: Final = (
    ("chosen", "rejected"),
    ("response_chosen", "response_rejected"),
    ("pos_resp", "neg_resp"),
    ("response_j", "response_k"),
)
SCORES: Final = ("score_chosen", "score_rejected")

_WORDS: Final = (
    ("chosen", "rejected"),
    ("accepted", "rejected"),
    ("accept", "reject"),
    ("preferred", "dispreferred"),
    ("better", "worse"),
    ("positive", "negative"),
    ("pos", "neg"),
    ("good", "bad"),
    ("win", "lose"),
    ("j", "k"),
)
"""Words for the better and the worse answer."""
_TEXT: Final = r"(?:response|resp|answer|output|completion|reply|text|content|messages?|conversations?)"
_SCORE: Final = r"(?:score|rating|reward)"
_MARKS: Final = (("0", "1"), ("1", "2"), ("a", "b"))
"""Suffixes of the columns of two answers if another column indicates which answer is better."""
_NUMBERED: Final = r"(?:human_ref|response|answer|output|completion|conversation|chat|text)"
_VERDICTS: Final = ("better_response_id", "winner", "preference", "preferred", "chosen", "better", "choice")
_STRENGTHS: Final = ("preference_strength",)


class _Pair(NamedTuple):
    """The columns of the better and the worse answer, and of their scores, if there are any."""

    better: str
    worse: str
    scores: tuple[str, str] | None = None


def preference_of(record: Mapping[str, Any], options: Options) -> Row | None:
    """Returns the pair of a record, in the columns of `PREFERENCE_WITH_MARGIN`; None if the record holds none.

    Raises:
        DataError: the prompt is missing or differs between the sides, nothing indicates which answer is better, the
            margin is negative, or a value has a wrong type.
    """
    record = renamed(record)
    pair = _sides(tuple(record))
    if pair is None and options.kind == "preference":
        pair = _judged(record)
    if pair is None:
        return None
    better, worse = pair.better, pair.worse
    chosen, rejected = _turns_or_text(record[better]), _turns_or_text(record[worse])
    if is_chat(chosen) and isinstance(rejected, str):
        turns = turns_of(chosen, better)
        if len(turns) > 1:
            return _pair(record, pair, turns[:-1], turns[-1]["content"], rejected)
    if is_chat(chosen) and is_chat(rejected):
        first, second = turns_of(chosen, better), turns_of(rejected, worse)
        if first[:-1] != second[:-1]:
            raise DataError(f"{better} and {worse} have no common prompt: the chats differ before their last turns")
        if len(first) > 1:
            return _pair(record, pair, first[:-1], first[-1]["content"], second[-1]["content"])
        chosen, rejected = first[-1]["content"], second[-1]["content"]
    prompt = chat_of({name: value for name, value in record.items() if name not in (better, worse)}, options, False)
    if prompt is None:
        raise DataError(f"has {better} and {worse} but no prompt: no prompt, question, instruction or conversations")
    return _pair(record, pair, prompt["messages"], string(chosen, better), string(rejected, worse))


@lru_cache(maxsize=256)
def _sides(columns: tuple[Any, ...]) -> _Pair | None:
    """Returns the columns of two answers if the names of both, or only of the worse one, indicate which is better.

    In ms-swift's data, for example, only the column of the worse answer has such a name.
    """
    by_name = {normalized(name).replace("-", "_"): name for name in reversed(columns)}
    for better, worse in _WORDS:
        pairs = [
            (by_name[form.format(better)], by_name[form.format(worse)], form)
            for form in (re.sub(rf"(?<![a-z]){worse}(?![a-z])", "{}", name) for name in by_name if "{" not in name)
            if "{}" in form and form.format(better) in by_name and form.format(worse) in by_name
        ]
        texts = [one for one in pairs if re.fullmatch(rf"(?:{_TEXT}_)?\{{\}}(?:_{_TEXT})?", one[2])]
        if texts and (better != "j" or texts[0][2] == "response_{}"):
            scores = [one for one in pairs if re.fullmatch(rf"(?:{_SCORE}_)?\{{\}}(?:_{_SCORE})?", one[2])]
            first, second, _ = texts[0]
            marks = [one for one in scores if one[0] != first]
            return _Pair(first, second, (marks[0][0], marks[0][1]) if marks else None)
    alone = next((by_name[name] for name in by_name if re.fullmatch(rf"rejected_{_TEXT}", name)), None)
    given = next((name for name in (*CHATS, *ANSWERS) if name in columns), None)
    return _Pair(given, alone) if alone and given else None


def _judged(record: Mapping[str, Any]) -> _Pair | None:
    """Returns the columns of two numbered answers if scores or another column indicate which is better.

    Raises:
        DataError: nothing indicates which answer is better, or both are equally good.
    """
    by_name = {normalized(name): name for name in reversed(list(record))}
    for marks in _MARKS:
        stems = {match[1] for name in by_name if (match := re.fullmatch(rf"({_NUMBERED})_?{marks[0]}", name))}
        for stem in sorted(stems):
            for gap in ("_", ""):
                columns = [by_name.get(f"{stem}{gap}{mark}", "") for mark in marks]
                if all(columns):
                    return _ordered(record, by_name, columns, marks)
    return None


def _ordered(
    record: Mapping[str, Any], by_name: Mapping[str, str], columns: list[str], marks: tuple[str, str]
) -> _Pair:
    first, second = columns
    scores = [by_name.get(f"score_{mark}", "") for mark in marks]
    if all(scores):
        one, other = (number(record[name], name) for name in scores)
        if one == other:
            raise DataError(f"{first} and {second} have the same score, so neither is better; leave such pairs out")
        better = 0 if one > other else 1
        return _Pair(columns[better], columns[1 - better], (scores[better], scores[1 - better]))
    for name in _STRENGTHS:
        if name in by_name:
            strength = number(record[by_name[name]], by_name[name])
            if strength == 0:
                raise DataError(f"{by_name[name]} is 0, so neither answer is better; leave such pairs out")
            return _Pair(first, second) if strength < 0 else _Pair(second, first)
    for name in _VERDICTS:
        if name in by_name:
            said = str(record[by_name[name]]).strip().lower()
            for index, mark in enumerate(marks):
                if said in (
                    mark,
                    *(f"{word}{gap}{mark}" for word in ("model", "response", "answer") for gap in ("_", "")),
                ):
                    return _Pair(columns[index], columns[1 - index])
            raise DataError(
                f"{by_name[name]} holds {said!r}, which names neither {first} nor {second}; leave such pairs out"
            )
    raise DataError(
        f"has {first} and {second} but no column that names the better one; name them with --map chosen=COLUMN --map "
        "rejected=COLUMN"
    )


def _turns_or_text(value: Any) -> Any:
    """Returns the turns of a transcript; any other value unchanged."""
    return transcript_of(value) or value if isinstance(value, str) else value


def _pair(record: Mapping[str, Any], pair: _Pair, prompt: Messages, chosen: str, rejected: str) -> Row:
    if not prompt or prompt[-1]["role"] != "user":
        raise DataError("the prompt does not end with a user's turn")
    if (system := optional_string(record, "system")) and prompt[0]["role"] != "system":
        prompt = [{"role": "system", "content": system}, *prompt]
    flaw, margin = optional_string(record, "flaw"), _margin(record, pair)
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "flaw": flaw, "margin": margin}


def _margin(record: Mapping[str, Any], pair: _Pair) -> float:
    """Returns the margin of the chosen answer: as given, else the difference of the two scores, else 0.

    Raises:
        DataError: the margin is negative.
    """
    scores = pair.scores or SCORES
    if record.get("margin") is not None:
        margin = number(record["margin"], "margin")
    elif all(record.get(name) is not None for name in scores):
        margin = number(record[scores[0]], scores[0]) - number(record[scores[1]], scores[1])
    else:
        return 0.0
    if margin < 0:
        raise DataError(f"the chosen answer's margin is {margin:g}, so the rejected answer is better")
    return margin
