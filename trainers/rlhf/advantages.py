"""From rewards and values to advantages, over a table's rows (A = response tokens of a row)."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch

from actors.modeling.openrlhf import compute_approx_kl
from actors.modeling.rows import as_list_column, flat, lengths
from actors.table import extended
from trainers.config.rlhf import AlgorithmConfig, PPOConfig
from trainers.rlhf.algorithms import ALGORITHMS, Floats
from trainers.rlhf.rewards import RewardShaper, add_reward


def with_advantages(table: pa.Table, config: PPOConfig, shaper: RewardShaper, kl_coef: float) -> pa.Table:
    """Adds what an update needs to a scored table: `reward`, `score`, `weights`, `advantages` and, with values, `returns`."""
    table = shaper.add_score(add_reward(table, config.reward_weights))
    table = add_weights(table, config.algorithm, config.rollout.max_new_tokens)
    return add_advantages(table, config.algorithm, kl_coef)


def add_advantages(table: pa.Table, algorithm: AlgorithmConfig, kl_coef: float) -> pa.Table:
    """Adds the column `advantages` (whitened over the tokens that are trained on, if asked for) and, with values, `returns`.

    Needs `score`, what each answer earns at its end, and `group`; `weights` says which tokens are trained on.
    """
    counts = lengths(table, "response")
    bounds = np.cumsum(counts)[:-1]
    rewards = np.split(token_rewards(table, algorithm, kl_coef), bounds)
    values = (
        np.split(flat(table, "values").astype(np.float64), bounds) if algorithm.has_critic else [None] * len(rewards)
    )
    row_advantages = ALGORITHMS[algorithm.name].row_advantages
    advantages = np.concatenate([row_advantages(r, v, algorithm) for r, v in zip(rewards, values, strict=True)])
    columns = {"advantages": advantages}
    if algorithm.has_critic:
        columns["returns"] = advantages + flat(table, "values")
    if algorithm.whiten_advantages:
        trained = advantages[flat(table, "weights") > 0]
        if len(trained):  # else nothing is trained on, and there is no mean
            columns["advantages"] = (advantages - trained.mean()) / np.sqrt(max(trained.var(), 1e-8))
    added = {name: as_list_column(of.astype(np.float32), counts, pa.float32()) for name, of in columns.items()}
    return extended(table, added, "driver")


def token_rewards(table: pa.Table, algorithm: AlgorithmConfig, kl_coef: float) -> Floats:
    """Reward of every response token, end to end: minus the weighted KL, and at a row's last token what it earns."""
    counts = lengths(table, "response")
    if algorithm.kl_in == "reward" and kl_coef > 0:
        kl = compute_approx_kl(
            torch.from_numpy(flat(table, "logprobs").copy()),
            torch.from_numpy(flat(table, "ref_logprobs").copy()),
            kl_estimator=algorithm.kl_estimator,
        ).numpy()
        rewards = -kl_coef * kl.astype(np.float64)
    else:
        rewards = np.zeros(counts.sum())
    shape = ALGORITHMS[algorithm.name].shape
    scores = table.column("score").to_numpy().astype(np.float64)
    rewards[np.cumsum(counts) - 1] += shape(scores, table.column("group").to_numpy())
    return rewards


def add_weights(table: pa.Table, algorithm: AlgorithmConfig, longest: int) -> pa.Table:
    """Adds `weights`, each token's share in its minibatch's loss: the aggregation, written once for all cuts.

    Minibatches are equally many consecutive rows. The weights of one sum to 1, or with `constant` to its mean length over
    `longest` (Liu et al. 2025, section 3.2); tokens of answers that are not trained on weigh 0.
    """
    counts = lengths(table, "response")
    trained = np.ones(len(table), dtype=bool)
    if algorithm.drop_truncated:
        trained = table.column("finished").to_numpy(zero_copy_only=False)
    size = len(table) // algorithm.minibatches
    row_weights = np.zeros(len(table))
    for first in range(0, size * algorithm.minibatches, size):
        part = slice(first, first + size)
        mask, tokens = trained[part], counts[part]
        rows = max(1, mask.sum())
        each = {
            "token_mean": np.full(size, 1.0 / max(1, tokens[mask].sum())),
            "sequence_mean": 1.0 / (rows * tokens),
            "constant": np.full(size, 1.0 / (rows * longest)),
        }[algorithm.loss_aggregation]
        row_weights[part] = np.where(mask, each, 0.0)
    column = as_list_column(np.repeat(row_weights, counts).astype(np.float32), counts, pa.float32())
    return extended(table, {"weights": column}, "driver")


def explained_variance(table: pa.Table) -> float:
    """1 - Var(returns - values) / Var(returns): how much of what came the critic had foreseen; 1 is all."""
    returns, values = flat(table, "returns").astype(np.float64), flat(table, "values").astype(np.float64)
    variance = returns.var()
    return float(1.0 - (returns - values).var() / variance) if variance > 0 else float("nan")
