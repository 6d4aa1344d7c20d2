"""The figures of one PPO step, as they go into metrics.jsonl and TensorBoard."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from actors.rows import flat, lengths
from actors.weights.publisher import Published
from trainers.advantages import explained_variance


def step_metrics(
    table: pa.Table,
    figures: dict[str, list[dict[str, float]]],
    published: Published,
    seconds: dict[str, float],
) -> dict[str, float]:
    """One flat mapping.

    Args:
        table: the step's rows with every column (see actors/rows.py).
        figures: what each optimiser step of "policy" and "critic" reported, in order.
        published: the publish at the end of the step.
        seconds: wall-clock seconds a phase.
    """
    answers, prompts = lengths(table, "response"), lengths(table, "prompt")
    reward = table.column("reward").to_numpy()
    logprobs = flat(table, "logprobs").astype(np.float64)
    engine_gap = np.abs(flat(table, "rollout_logprobs") - logprobs)
    kl = logprobs - flat(table, "ref_logprobs")
    total = sum(seconds.values())
    return {
        "reward": float(reward.mean()),
        "reward_std": float(reward.std()),
        "kl_to_reference": float(kl.sum() / len(table)),  # nats an answer
        "kl_to_reference_per_token": float(kl.mean()),
        "response_tokens": float(answers.mean()),
        "response_tokens_max": float(answers.max()),
        "prompt_tokens": float(prompts.mean()),
        "truncated": float(1.0 - np.mean(table.column("finished").to_numpy(zero_copy_only=False))),
        "explained_variance": explained_variance(table),
        "engine_trainer_gap_mean": float(engine_gap.mean()),
        "engine_trainer_gap_max": float(engine_gap.max()),
        **_learning("policy", figures),
        **_learning("critic", figures),
        "weights_version": float(published.version),
        "publish_drift": published.drift,
        "tokens_per_second": float((answers.sum() + prompts.sum()) / total),
        **{f"seconds_{phase}": value for phase, value in seconds.items()},
        "seconds": total,
    }


def _learning(role: str, figures: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    """Means over the optimiser steps, and the first one's KL and ratio: they are exactly 0 when nothing is stale."""
    steps = figures.get(role)
    if not steps:
        return {}
    means = {f"{role}_{name}": float(np.mean([step[name] for step in steps])) for name in steps[0]}
    first = {f"{role}_first_{name}": steps[0][name] for name in ("kl", "ratio_deviation") if name in steps[0]}
    return {**means, **first}
