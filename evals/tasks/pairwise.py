"""Preference pairs: how often a reward model scores the chosen response higher, and how often length alone would.

The length baseline is the best of four rules that use only lengths: prefer the longer or the shorter response, measured
in tokens or in characters. The best rule is selected on the same pairs on which it is reported, which favors the
baseline, not the reward model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from data.pairs import encode_pair, length_baseline, wins
from evals.models.reward_model import RewardModel
from evals.models.subject import Metrics, Row


def evaluate(model: RewardModel, rows: Sequence[Row]) -> Metrics:
    """Evaluates a reward model on preference pairs.

    Returns:
        - `accuracy` over all pairs, where a tie counts one half, and `by_flaw`;
        - `ties`: number of pairs with equal rewards;
        - `length_baseline`: the larger of `length_baseline_tokens` and `length_baseline_characters`;
        - `n`: number of pairs.
    """
    tokenizer = model.folder.tokenizer
    # The prompt counts in the lengths; it is the same on both sides, so it does not affect their comparison.
    sides = [[prompt + response for prompt, response in encode_pair(tokenizer, row)] for row in rows]
    chosen, rejected = [pair[0] for pair in sides], [pair[1] for pair in sides]
    rewards = model.score(chosen + rejected)
    right = wins(rewards[: len(rows)], rewards[len(rows) :]).tolist()
    by_flaw: dict[str, list[float]] = defaultdict(list)
    for row, value in zip(rows, right, strict=True):
        by_flaw[row["flaw"]].append(value)
    tokens = length_baseline([len(ids) for ids in chosen], [len(ids) for ids in rejected])
    characters = length_baseline([len(row["chosen"]) for row in rows], [len(row["rejected"]) for row in rows])
    return {
        "accuracy": fmean(right),
        "by_flaw": {flaw: {"accuracy": fmean(values), "n": len(values)} for flaw, values in sorted(by_flaw.items())},
        "ties": sum(value == 0.5 for value in right),
        "length_baseline": max(tokens, characters),
        "length_baseline_tokens": tokens,
        "length_baseline_characters": characters,
        "n": len(rows),
    }
