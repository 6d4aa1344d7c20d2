"""A record of two answers to one prompt, in any layout, → a preference pair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from data.prepare.chats import Row, chat_of, is_chat
from data.prepare.options import Options
from data.prepare.turns import Messages, transcript_of, turns_of
from data.prepare.values import number, optional_string, string
from data.tables import DataError

SIDES: Final = (
    ("chosen", "rejected"),
    ("response_chosen", "response_rejected"),
    ("pos_resp", "neg_resp"),
    ("response_j", "response_k"),
)
SCORES: Final = ("score_chosen", "score_rejected")


def preference_of(record: Mapping[str, Any], options: Options) -> Row | None:
    """The pair of a record, in the columns of `PREFERENCE_WITH_MARGIN`; None if it holds none.

    Raises:
        DataError: the prompt is missing or not common to both sides, or a value is of a wrong type.
    """
    for better, worse in SIDES:
        if better in record and worse in record:
            break
    else:
        return None
    chosen, rejected = _turns_or_text(record[better]), _turns_or_text(record[worse])
    if is_chat(chosen) and is_chat(rejected):
        first, second = turns_of(chosen, better), turns_of(rejected, worse)
        if first[:-1] != second[:-1]:
            raise DataError(f"{better} and {worse} are chats that differ before their last turns: no common prompt")
        if len(first) > 1:
            return _pair(record, first[:-1], first[-1]["content"], second[-1]["content"])
        chosen, rejected = first[-1]["content"], second[-1]["content"]
    prompt = chat_of({name: value for name, value in record.items() if name not in (better, worse)}, options, False)
    if prompt is None:
        raise DataError(f"has {better} and {worse} but no prompt: no prompt, question, instruction or conversations")
    return _pair(record, prompt["messages"], string(chosen, better), string(rejected, worse))


def _turns_or_text(value: Any) -> Any:
    """A transcript's turns, anything else as it is."""
    return transcript_of(value) or value if isinstance(value, str) else value


def _pair(record: Mapping[str, Any], prompt: Messages, chosen: str, rejected: str) -> Row:
    if not prompt or prompt[-1]["role"] != "user":
        raise DataError("the prompt does not end with a user's turn")
    flaw, margin = optional_string(record, "flaw"), _margin(record)
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "flaw": flaw, "margin": margin}


def _margin(record: Mapping[str, Any]) -> float:
    """By how much the chosen answer is better: as given, or the difference of two scores; 0 where neither is there."""
    if record.get("margin") is not None:
        margin = number(record["margin"], "margin")
    elif all(record.get(name) is not None for name in SCORES):
        margin = number(record[SCORES[0]], SCORES[0]) - number(record[SCORES[1]], SCORES[1])
    else:
        return 0.0
    if margin < 0:
        raise DataError(f"the chosen answer's margin is {margin:g}: the rejected one is the better")
    return margin
