"""From rewards and values to advantages, over a table's rows (A = response tokens of a row)."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch

from actors.openrlhf import compute_approx_kl
from actors.rows import as_list_column, flat, lengths
from trainers.config import AlgorithmConfig


def token_rewards(table: pa.Table, algorithm: AlgorithmConfig) -> np.ndarray:
    """Reward of every response token, end to end: minus the weighted KL, and at a row's last token its score."""
    counts = lengths(table, "response")
    kl = compute_approx_kl(
        torch.from_numpy(flat(table, "logprobs").copy()),
        torch.from_numpy(flat(table, "ref_logprobs").copy()),
        kl_estimator=algorithm.kl_estimator,
    ).numpy()
    rewards = -algorithm.kl_coef * kl.astype(np.float64)
    scores = table.column("reward").to_numpy().astype(np.float64)
    rewards[np.cumsum(counts) - 1] += scores.clip(-algorithm.reward_clip, algorithm.reward_clip)
    return rewards


def generalised_advantages(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> np.ndarray:
    """Advantages of one row's tokens, (A,) (Schulman et al. 2016, eq. 16): sum over l of (gamma lam)^l delta_{t+l}.

    delta_t = r_t + gamma V_{t+1} - V_t; the value after the last token is 0, because the answer ends there.
    """
    deltas = rewards + gamma * np.append(values[1:], 0.0) - values
    advantages = np.zeros_like(deltas)
    carried = 0.0
    for t in reversed(range(len(deltas))):
        carried = deltas[t] + gamma * lam * carried
        advantages[t] = carried
    return advantages


def add_advantages(table: pa.Table, algorithm: AlgorithmConfig) -> pa.Table:
    """Adds the columns `advantages` (whitened over the table's tokens, if asked for) and `returns`."""
    counts = lengths(table, "response")
    bounds = np.cumsum(counts)[:-1]
    values = flat(table, "values").astype(np.float64)
    by_row = zip(np.split(token_rewards(table, algorithm), bounds), np.split(values, bounds), strict=True)
    advantages = np.concatenate(
        [generalised_advantages(r, v, algorithm.gamma, algorithm.gae_lambda) for r, v in by_row]
    )
    returns = advantages + values
    if algorithm.whiten_advantages:
        advantages = (advantages - advantages.mean()) / np.sqrt(max(advantages.var(), 1e-8))
    for name, column in (("advantages", advantages), ("returns", returns)):
        table = table.append_column(name, as_list_column(column.astype(np.float32), counts, pa.float32()))
    return table


def explained_variance(table: pa.Table) -> float:
    """1 - Var(returns - values) / Var(returns): how much of what came the critic had foreseen; 1 is all."""
    returns, values = flat(table, "returns").astype(np.float64), flat(table, "values").astype(np.float64)
    variance = returns.var()
    return float(1.0 - (returns - values).var() / variance) if variance > 0 else float("nan")
