"""Advantages from rewards and values, over the rows of a table.

Shapes: R rows; N response tokens of all rows, concatenated; A response tokens of one row.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch

from actors.modeling.openrlhf import compute_approx_kl
from actors.modeling.rows import as_list_column, flat, lengths
from actors.table import extended
from trainers.config.algorithm import AlgorithmConfig
from trainers.config.rlhf import PPOConfig
from trainers.rlhf.algorithms import ALGORITHMS, Floats
from trainers.rlhf.rewards import RewardShaper, add_reward


def with_advantages(table: pa.Table, config: PPOConfig, shaper: RewardShaper, kl_coef: float) -> pa.Table:
    """Adds the columns that an update needs to a scored table.

    These are `reward`, `score`, `weights`, `advantages`, and, with a critic, `returns`.

    Args:
        table: the step's rows, with a column `reward_NAME` for every source of reward.
        config: the run's settings.
        shaper: computes `score` from `reward`, and updates its running statistics.
        kl_coef: coefficient of the KL penalty in this step.
    """
    table = shaper.add_score(add_reward(table, config.reward_weights))
    table = add_weights(table, config.algorithm, config.rollout.max_new_tokens)
    return add_advantages(table, config.algorithm, kl_coef)


def add_advantages(table: pa.Table, algorithm: AlgorithmConfig, kl_coef: float) -> pa.Table:
    """Adds the column `advantages` and, with a critic, `returns`: a value for every response token.

    With `whiten_advantages`, advantages are whitened over the tokens that are trained on, those with `weights` above 0.
    Requires the columns `score` (a response's outcome reward, given at its last token), `group`, and `weights`.
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
        if len(trained):  # the mean of no tokens is undefined
            columns["advantages"] = (advantages - trained.mean()) / np.sqrt(max(trained.var(), 1e-8))
    added = {name: as_list_column(of.astype(np.float32), counts, pa.float32()) for name, of in columns.items()}
    return extended(table, added, "driver")


def token_rewards(table: pa.Table, algorithm: AlgorithmConfig, kl_coef: float) -> Floats:
    """Returns the rewards of all response tokens, (N,).

    The reward of a token is -`kl_coef` times its KL to the reference if `kl_in` is `reward`, else 0. The last token of
    a row also gets the row's shaped score.
    """
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
    """Adds `weights`: each response token's weight in the loss of its minibatch.

    The weights implement `loss_aggregation`, so the loss does not depend on how a minibatch is split into micro-batches
    and over ranks. Minibatches are consecutive blocks with the same number of rows. The weights of a minibatch sum to
    1, or, with `constant`, to its mean response length divided by `longest` (Liu et al. 2025, section 3.2). Tokens of
    responses that are not trained on have weight 0.

    Args:
        longest: maximum length of a response, in tokens.
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
    """Returns the critic's explained variance, 1 - Var(returns - values) / Var(returns), over all response tokens.

    1 is a perfect critic. NaN if the returns are constant.
    """
    returns, values = flat(table, "returns").astype(np.float64), flat(table, "values").astype(np.float64)
    variance = returns.var()
    return float(1.0 - (returns - values).var() / variance) if variance > 0 else float("nan")
