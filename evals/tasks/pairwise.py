"""Preference pairs: how often a reward model puts the chosen answer first, and how often length alone would.

The length baseline is the best of four judges who see only lengths: the longer or the shorter answer wins, counted in
tokens or in characters. The best is taken on the very pairs it is reported on, which flatters the baseline, not us.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from data.chat import chat_format
from evals.models.reward_model import RewardModel
from evals.models.subject import Metrics, Row

CUT_OFF = "cut_off"  # the flaw whose rejected answers lack the end mark


def evaluate(model: RewardModel, rows: Sequence[Row]) -> Metrics:
    """`accuracy` over all pairs and `by_flaw`; `length_baseline` and the two it is the best of; `ties`: pairs of equal
    reward, each of which counts one half.
    """
    tokenizer = model.folder.tokenizer
    chosen = [_encode(tokenizer, row, "chosen") for row in rows]
    rejected = [_encode(tokenizer, row, "rejected") for row in rows]
    rewards = model.score(chosen + rejected)
    wins = [win(one, other) for one, other in zip(rewards[: len(rows)], rewards[len(rows) :], strict=True)]
    by_flaw: dict[str, list[float]] = defaultdict(list)
    for row, value in zip(rows, wins, strict=True):
        by_flaw[row["flaw"]].append(value)
    tokens = length_judge([len(ids) for ids in chosen], [len(ids) for ids in rejected])
    characters = length_judge([len(row["chosen"]) for row in rows], [len(row["rejected"]) for row in rows])
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
    """1 if the chosen one has more, 0 if the rejected one has, 1/2 if they tie."""
    return 0.5 if chosen == rejected else float(chosen > rejected)


def length_judge(chosen: Sequence[int], rejected: Sequence[int]) -> float:
    """Accuracy of the better of "the longer wins" and "the shorter wins"."""
    longer = fmean(win(one, other) for one, other in zip(chosen, rejected, strict=True))
    return max(longer, 1 - longer)


def _encode(tokenizer: Any, row: Row, side: str) -> list[int]:
    """Prompt and answer as the reward model is trained on them: an answer that was cut off lacks the end mark.

    The prompt is the same on both sides, so it decides nothing about lengths.
    """
    prompt, response = chat_format(tokenizer).response([*row["prompt"], {"role": "assistant", "content": row[side]}])
    return prompt + (response[:-1] if side == "rejected" and row["flaw"] == CUT_OFF else response)
