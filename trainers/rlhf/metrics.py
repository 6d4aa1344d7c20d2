"""Metrics of one RLHF step, as logged to metrics.jsonl and TensorBoard."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from actors.modeling.rows import flat, lengths, trained_rows
from actors.table import reward_sources
from actors.weight_sync.publisher import Published
from trainers.rlhf.advantages import explained_variance


def step_metrics(
    table: pa.Table,
    metrics: dict[str, list[dict[str, float]]],
    version: int,
    published: Published | None,
    kl_coef: float,
    staleness: np.ndarray,
) -> dict[str, float]:
    """Returns all metrics of a step, by name.

    Args:
        table: the step's rows with every column (see actors/table.py).
        metrics: the metrics of each optimizer step of "policy" and "critic", in order.
        version: the policy's weights version at the end of the step.
        published: the result of publishing at the end of the step; None if nothing was published.
        kl_coef: the KL coefficient in this step.
        staleness: number of versions by which the weights that generated each of the N response tokens are older than
            the policy, (N,).
    """
    responses, prompts = lengths(table, "response"), lengths(table, "prompt")
    reward = table.column("reward").to_numpy()
    sources = reward_sources(table)
    return {
        "reward": float(reward.mean()),
        "reward_std": float(reward.std()),
        **({name: float(table.column(name).to_numpy().mean()) for name in sources} if len(sources) > 1 else {}),
        "score": float(table.column("score").to_numpy().mean()),
        **_kl(table, stale=bool(staleness.any())),
        "kl_coef": kl_coef,
        "response_tokens": float(responses.mean()),
        "response_tokens_max": float(responses.max()),
        "prompt_tokens": float(prompts.mean()),
        "tokens": float(responses.sum() + prompts.sum()),
        "truncated": float(1.0 - np.mean(table.column("finished").to_numpy(zero_copy_only=False))),
        "trained_share": float(trained_rows(table).mean()),  # share of the responses
        **({"explained_variance": explained_variance(table)} if "returns" in table.column_names else {}),
        **_update_metrics("policy", metrics),
        **_update_metrics("critic", metrics),
        "weights_version": float(version),
        "staleness": float(staleness.mean()),
        "staleness_max": float(staleness.max()),
        **({"publish_drift": published.drift, "transfer_seconds": published.seconds} if published else {}),
    }


def _kl(table: pa.Table, stale: bool) -> dict[str, float]:
    """Returns the KL of policy to reference, and the gap between engine and policy, if the table has those columns.

    If the table has no log-probabilities of the policy (`logprobs`), those of the engine are used for the KL.
    """
    known = "logprobs" in table.column_names
    rollout = flat(table, "rollout_logprobs").astype(np.float64)
    logprobs = flat(table, "logprobs").astype(np.float64) if known else rollout
    metrics = {}
    if "ref_logprobs" in table.column_names:
        kl = logprobs - flat(table, "ref_logprobs")
        metrics["kl_to_reference"] = float(kl.sum() / len(table))  # nats per response
        metrics["kl_to_reference_per_token"] = float(kl.mean())
    if known:
        gap = np.abs(rollout - logprobs)
        pair = "behind" if stale else "engine_trainer"  # with the same weights, the gap is only numerical
        metrics[f"{pair}_gap_mean"] = float(gap.mean())
        metrics[f"{pair}_gap_max"] = float(gap.max())
        metrics[f"{pair}_kl"] = float((rollout - logprobs).mean())
    return metrics


def _update_metrics(role: str, metrics: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    """Returns the means over the optimizer steps, and the KL and the ratio deviation of the first one.

    The latter two are exactly 0 if the weights have not changed since the old log-probabilities were computed.
    """
    steps = metrics.get(role)
    if not steps:
        return {}
    means = {f"{role}_{name}": float(np.mean([step[name] for step in steps])) for name in steps[0]}
    first = {f"{role}_first_{name}": steps[0][name] for name in ("kl", "ratio_deviation") if name in steps[0]}
    return {**means, **first}
