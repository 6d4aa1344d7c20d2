"""Preference pairs: how often a reward model scores the chosen response higher, and how often length alone would.

The length baseline is the best of four rules that use only lengths: prefer the longer or the shorter response, measured
in tokens or in characters. The best is selected on the pairs on which it is reported, which favors the baseline, not
the reward model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from data.chat import chat_format
from evals.models.reward_model import RewardModel
from evals.models.subject import Metrics, Row

CUT_OFF = "cut_off"  # the flaw whose rejected responses have no end-of-turn token


def evaluate(model: RewardModel, rows: Sequence[Row]) -> Metrics:
    """Evaluates a reward model on preference pairs.

    Returns:
        - `accuracy` over all pairs, where a tie counts one half, and `by_flaw`;
        - `ties`: number of pairs with equal rewards;
        - `length_baseline`: the larger of `length_baseline_tokens` and `length_baseline_characters`;
        - `n`: number of pairs.
    """
    tokenizer = model.folder.tokenizer
    chosen = [_encode(tokenizer, row, "chosen") for row in rows]
    rejected = [_encode(tokenizer, row, "rejected") for row in rows]
    rewards = model.score(chosen + rejected)
    wins = [win(one, other) for one, other in zip(rewards[: len(rows)], rewards[len(rows) :], strict=True)]
    by_flaw: dict[str, list[float]] = defaultdict(list)
    for row, value in zip(rows, wins, strict=True):
        by_flaw[row["flaw"]].append(value)
    tokens = length_baseline([len(ids) for ids in chosen], [len(ids) for ids in rejected])
    characters = length_baseline([len(row["chosen"]) for row in rows], [len(row["rejected"]) for row in rows])
    return {
        "accuracy": fmean(wins),
        "by_flaw": {flaw: {"accuracy": fmean(values), "n": len(values)} for flaw, values in sorted(by_flaw.items())},
        "ties": sum(value == 0.5 for value in wins),
        "length_baseline": max(tokens, characters),
        "length_baseline_tokens": tokens,
        "length_baseline_characters": characters,
        "n": len(rows),
    }


def win(chosen: float, rejected: float) -> float:
    """Returns 1 if `chosen` is larger, 0 if `rejected` is, 0.5 if they are equal."""
    return 0.5 if chosen == rejected else float(chosen > rejected)


def length_baseline(chosen: Sequence[int], rejected: Sequence[int]) -> float:
    """Returns the accuracy of the better of the rules "the longer wins" and "the shorter wins"."""
    longer = fmean(win(one, other) for one, other in zip(chosen, rejected, strict=True))
    return max(longer, 1 - longer)


def _encode(tokenizer: Any, row: Row, side: str) -> list[int]:
    """Encodes prompt and response as in the reward model's training: a truncated response has no end-of-turn token.

    The prompt is the same on both sides, so it does not affect the length comparison.
    """
    prompt, response = chat_format(tokenizer).response([*row["prompt"], {"role": "assistant", "content": row[side]}])
    return prompt + (response[:-1] if side == "rejected" and row["flaw"] == CUT_OFF else response)
