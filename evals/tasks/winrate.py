"""Preference: how often a reward model prefers one model's responses to another's, also controlled for length.

The reward model scores each response separately, so the order of the two cannot matter; `win_rate` is nevertheless
counted in both orders, and the two rates add up to 1. Length is controlled for as in Dubois et al., "Length-Controlled
AlpacaEval" (2024): a logistic regression of the wins on the length difference, evaluated at a difference of 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np

from data.chat import encode_prompt
from data.pairs import wins
from evals.metrics.intervals import mean_interval
from evals.models.subject import Metrics, Row, Subject

_RIDGE = 1e-3  # penalty on the length coefficient, which keeps the fit finite if length alone predicts every win
_TINY = 1e-6  # penalty on the intercept, which keeps the fit finite if one model wins every time
_STEPS = 100


def evaluate(subject: Subject, rows: Sequence[Row]) -> Metrics:
    """Compares the model's greedy responses to the prompts with those of `subject.rival`.

    Responses are scored as generated: with the end-of-turn token if they have one.

    Returns:
        The metrics of `win_rates`; `empty` and `rival_empty`, the number of empty responses, which are scored like all
        others; `unfinished` and `rival_unfinished`, the share of truncated responses.

    Raises:
        RuntimeError: there is no reward model or no rival.
    """
    if subject.reward is None or subject.rival is None:
        raise RuntimeError("the preference task was started without a reward model or a second model")
    prompts = [encode_prompt(subject.folder.tokenizer, row["prompt"]) for row in rows]
    own = subject.engine.generate(prompts, subject.settings.open_tokens, label="responses of the model")
    subject.engine.load(subject.rival)
    try:
        other = subject.engine.generate(prompts, subject.settings.open_tokens, label="responses of the other model")
    finally:
        subject.engine.load(subject.folder)
    rewards = subject.reward.score([p + a.ids for p, a in zip(prompts * 2, [*own, *other], strict=True)])
    return {
        **win_rates(
            rewards[: len(rows)],
            rewards[len(rows) :],
            [len(answer.text) for answer in own],
            [len(answer.text) for answer in other],
        ),
        "empty": sum(not answer.text.strip() for answer in own),
        "rival_empty": sum(not answer.text.strip() for answer in other),
        "unfinished": fmean(not answer.finished for answer in own),
        "rival_unfinished": fmean(not answer.finished for answer in other),
    }


def win_rates(
    own: Sequence[float], other: Sequence[float], own_length: Sequence[int], other_length: Sequence[int]
) -> Metrics:
    """Computes win rates from rewards.

    Args:
        own: (N,) rewards of the model's responses.
        other: (N,) rewards of the rival's responses.
        own_length: (N,) lengths of the model's responses, in characters.
        other_length: (N,) lengths of the rival's responses, in characters.

    Returns:
        - `win_rate` with its 95% `interval`; a tie is half a win;
        - `rival_win_rate`: counted in the other order;
        - `ties`: number of ties;
        - `length_controlled`: the win rate at equal length;
        - `length_effect`: the coefficient of tanh(d / std d) in the log-odds of winning, where d is the length
          difference;
        - `mean_length` and `rival_mean_length`, in characters;
        - `n`: number of pairs.
    """
    won = wins(own, other).tolist()
    rate, effect = _at_equal_length(won, [a - b for a, b in zip(own_length, other_length, strict=True)])
    return {
        "win_rate": fmean(won),
        "interval": mean_interval(won),
        "rival_win_rate": fmean(wins(other, own).tolist()),
        "ties": sum(value == 0.5 for value in won),
        "length_controlled": rate,
        "length_effect": effect,
        "mean_length": fmean(own_length),
        "rival_mean_length": fmean(other_length),
        "n": len(won),
    }


def _at_equal_length(won: Sequence[float], differences: Sequence[int]) -> tuple[float, float]:
    """Fits P(win) = sigmoid(a + b tanh(d / std d)) and returns sigmoid(a) and b.

    The fit uses Newton's method on the ridge-penalized likelihood.

    Args:
        won: (N,) 1 for a win, 0.5 for a tie, 0 for a loss.
        differences: (N,) differences d in length, own - other, in characters.
    """
    y_N, d_N = np.asarray(won), np.asarray(differences, dtype=float)
    spread = d_N.std()
    x_N2 = np.stack([np.ones_like(d_N), np.tanh(d_N / spread) if spread else np.zeros_like(d_N)], axis=1)
    ridge_2 = len(y_N) * np.array([_TINY, _RIDGE])
    w_2 = np.zeros(2)
    for _ in range(_STEPS):
        p_N = 1 / (1 + np.exp(-x_N2 @ w_2))
        gradient_2 = x_N2.T @ (y_N - p_N) - ridge_2 * w_2
        hessian_22 = x_N2.T @ (x_N2 * (p_N * (1 - p_N))[:, None]) + np.diag(ridge_2)
        step_2 = np.linalg.solve(hessian_22, gradient_2)
        w_2 += step_2
        if np.abs(step_2).max() < 1e-10:
            break
    return float(1 / (1 + np.exp(-w_2[0]))), float(w_2[1])
