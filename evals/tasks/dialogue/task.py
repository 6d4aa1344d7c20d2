"""Open questions and conversations: compares the model's response with the doctor's, for the last and for every turn.

The context of each response contains the doctor's earlier turns, not the model's, so that a bad response does not
affect later ones.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import fmean

from data.chat import Message
from evals.metrics.overlap import overlap
from evals.models.respondent import Reply, Respondent
from evals.models.subject import Metrics, Settings
from evals.tasks.dialogue.readers import Dialogues, Exchange
from evals.tasks.faults import EMPTY, TOO_LONG, Fault, fault_counts

SHOWN = 5


def sampled(dialogues: Dialogues, limit: int, seed: int) -> Dialogues:
    """Returns at most `limit` of the conversations, chosen by `seed`, in their original order."""
    if len(dialogues.conversations) <= limit:
        return dialogues
    places = sorted(random.Random(seed).sample(range(len(dialogues.conversations)), limit))
    kept = [dialogues.conversations[place] for place in places]
    wheres = {exchange.where.partition(",")[0] for own in kept for exchange in own}
    faults = [fault for fault in dialogues.faults if fault.where.partition(",")[0] in wheres]
    return Dialogues(kept, faults, dialogues.files)


def evaluate(model: Respondent, dialogues: Dialogues, settings: Settings) -> Metrics:
    """Evaluates greedy responses.

    Returns:
        - `last_turn` and, if `settings.every_turn`, `every_turn`: the metrics of `overlap`, and `unfinished`, the share
          of truncated responses;
        - `rouge_l`: that of `last_turn`;
        - `shortened`: number of exchanges whose oldest turns were dropped to fit the context;
        - `faults`; `samples`, the first responses; `n`, the number of exchanges.
    """
    exchanges = [
        exchange for own in dialogues.conversations for exchange in own if exchange.last or settings.every_turn
    ]
    chats = [None if e.fault else _fitting(model, e.chat, settings.open_tokens) for e in exchanges]
    replies = iter(model.answer([chat for chat in chats if chat], settings.open_tokens, "answers"))
    answers = [
        next(replies) if chat else Reply("", problem="" if e.fault else TOO_LONG)
        for e, chat in zip(exchanges, chats, strict=True)
    ]
    faults = list(dialogues.faults)
    for exchange, answer in zip(exchanges, answers, strict=True):
        if not exchange.fault and not answer.text.strip():
            faults.append(Fault(answer.problem or EMPTY, exchange.where))
    shortened = sum(bool(chat) and len(chat) < len(e.chat) for e, chat in zip(exchanges, chats, strict=True) if chat)
    last = [place for place, exchange in enumerate(exchanges) if exchange.last]
    scores = {"last_turn": _scores([exchanges[i] for i in last], [answers[i] for i in last])}
    if settings.every_turn:
        scores["every_turn"] = _scores(exchanges, answers)
    return {
        "rouge_l": scores["last_turn"]["rouge_l"],
        **scores,
        "shortened": shortened,
        "faults": fault_counts(faults),
        "samples": [
            {"question": e.chat[-1]["content"] if e.chat else "", "reference": e.reference, "answer": answer.text}
            for e, answer in list(zip(exchanges, answers, strict=True))[:SHOWN]
        ],
        "n": len(exchanges),
    }


def _scores(exchanges: Sequence[Exchange], answers: Sequence[Reply]) -> Metrics:
    scores = overlap([answer.text for answer in answers], [exchange.reference for exchange in exchanges])
    return scores | {"unfinished": fmean(not answer.finished for answer in answers)}


def _fitting(model: Respondent, chat: Sequence[Message], tokens: int) -> list[Message] | None:
    """Returns the chat, without as many of its oldest exchanges as needed to fit the context; a system turn is kept.

    Returns None if even the last turn alone does not fit.
    """
    system = list(chat[:1]) if chat[0]["role"] == "system" else []
    for start in range(len(system), len(chat), 2):
        shorter = [*system, *chat[start:]]
        if model.fits(shorter, tokens):
            return shorter
    return None
