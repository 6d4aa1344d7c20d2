"""Selection of the responses that a round trains on, as pure functions of the table of scored samples.

RAFT (Dong et al. 2023, arXiv 2304.06767) and Llama 2 (Touvron et al. 2023, arXiv 2307.09288, section 3.2.3) fine-tune
on the best of N responses to each prompt; ChiMed-GPT (Tian et al. 2024) on the K best of all responses.

The table has one row per sample. These functions read its columns `prompt_id`, `sample`, `response`, `finished`, and
`reward`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from actors.modeling.rows import lengths
from configs.errors import RunError
from data.chat import Message, chat_format
from data.tables import DataError, column_values
from trainers.config.rejection import SelectionConfig

Verdict = Literal["passed", "truncated", "unusable", "below_min_reward"]


def chat_with(prompt: list[Message], response: list[int], tokenizer: Any) -> list[Message] | None:
    """Returns the chat of a prompt and a finished response, or None if the chat format cannot express the response.

    The format cannot express a response that is empty, contains a forged turn, or ends inside a character. The last
    token of `response`, which ended it, is not part of the chat.
    """
    text: str = tokenizer.decode(response[:-1], skip_special_tokens=False)
    chat: list[Message] = [*prompt, {"role": "assistant", "content": text}]
    try:
        chat_format(tokenizer).check(chat)
    except DataError:
        return None
    return None if "\N{REPLACEMENT CHARACTER}" in text else chat


def verdicts(table: pa.Table, usable: Sequence[bool], min_reward: float | None) -> list[Verdict]:
    """Returns, for each row, whether it may be chosen, or the first reason why not.

    Args:
        usable: for each row, whether the chat format can express the response.
        min_reward: the lowest reward that may be chosen; None for no limit.

    Raises:
        RunError: a reward is not finite; the message names the sample.
    """
    outcomes: list[Verdict] = []
    rows = zip(*(table.column(name).to_pylist() for name in ("prompt_id", "sample", "finished", "reward")), strict=True)
    for (prompt, sample, finished, reward), fits in zip(rows, usable, strict=True):
        if not np.isfinite(reward):
            raise RunError(
                f"sample {sample} of prompt {prompt} has reward {reward}: the reward model's weights are broken; "
                "export or download the reward model again"
            )
        if not finished:
            outcomes.append("truncated")
        elif not fits:
            outcomes.append("unusable")
        elif min_reward is not None and reward < min_reward:
            outcomes.append("below_min_reward")
        else:
            outcomes.append("passed")
    return outcomes


def choose(table: pa.Table, outcomes: Sequence[Verdict], config: SelectionConfig) -> list[int]:
    """Returns the indices of the rows to train on, among those that passed, in ascending order."""
    rows = [row for row, verdict in enumerate(outcomes) if verdict == "passed"]
    if config.by == "per_prompt":
        return best_of_n(table, rows)
    assert config.k is not None  # validated by SelectionConfig
    return global_top_k(table, rows, config.k, config.one_per_prompt)


def best_of_n(table: pa.Table, rows: Sequence[int]) -> list[int]:
    """Returns, for every prompt, the row of `rows` with the highest reward; the lower sample number breaks ties."""
    return sorted(_first_of_prompts(table, _best_first(table, rows)))


def global_top_k(table: pa.Table, rows: Sequence[int], k: int, one_per_prompt: bool) -> list[int]:
    """Returns the `k` of `rows` with the highest rewards, or all if there are fewer; ties as in `best_of_n`."""
    order = _best_first(table, rows)
    return sorted((_first_of_prompts(table, order) if one_per_prompt else order)[:k])


def report(table: pa.Table, outcomes: Sequence[Verdict], chosen: Sequence[int]) -> dict[str, float]:
    """Returns the metrics of a round's selection.

    `reward` and `response_tokens` are means over all samples, including truncated ones; `chosen_reward` and
    `chosen_response_tokens` are means over the chosen ones, and `chosen_reward_min` is their minimum.

    Raises:
        RunError: no response was chosen.
    """
    counts = Counter(outcomes)
    if not chosen:
        raise RunError(
            f"none of {len(table)} responses can be selected: {counts['truncated']} were truncated, "
            f"{counts['unusable']} do not fit the chat format, {counts['below_min_reward']} are below "
            "selection.min_reward; raise rollout.max_new_tokens or lower selection.min_reward"
        )
    prompts = table.column("prompt_id").to_numpy()
    rewards = table.column("reward").to_numpy().astype(np.float64)
    tokens = lengths(table, "response")
    passed = np.array(outcomes) == "passed"
    return {
        "prompts": len(set(prompts.tolist())),
        "samples": len(table),
        "truncated": counts["truncated"],
        "unusable": counts["unusable"],
        "below_min_reward": counts["below_min_reward"],
        "passed": counts["passed"],
        "prompts_passed": len(set(prompts[passed].tolist())),
        "chosen": len(chosen),
        "reward": float(rewards.mean()),
        "reward_std": float(rewards.std()),
        "chosen_reward": float(rewards[chosen].mean()),
        "chosen_reward_min": float(rewards[chosen].min()),
        "response_tokens": float(tokens.mean()),
        "chosen_response_tokens": float(tokens[chosen].mean()),
    }


def _best_first(table: pa.Table, rows: Sequence[int]) -> list[int]:
    """Sorts `rows` by descending reward; the lower sample number, then the lower row index, breaks ties."""
    rewards, samples = column_values(table, "reward"), column_values(table, "sample")
    return sorted(rows, key=lambda row: (-rewards[row], samples[row], row))


def _first_of_prompts(table: pa.Table, order: Sequence[int]) -> list[int]:
    """Returns the first row of every prompt in `order`."""
    prompts = column_values(table, "prompt_id")
    first: dict[int, int] = {}
    for row in order:
        first.setdefault(prompts[row], row)
    return list(first.values())
