"""Preference: how often a reward model prefers one model's answers to another's, and how often it would at equal length.

The reward model scores each answer by itself, so which of the two comes first cannot matter; `win_rate` is nevertheless
counted in both orders, and each model's rate is 1 less the other's. Length is taken out as in Dubois et al.,
"Length-Controlled AlpacaEval" (2024): a logistic regression of the wins on the difference in length, read at 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np

from data.chat import encode_prompt
from evals.metrics.intervals import mean_interval
from evals.models.subject import Metrics, Row, Subject
from evals.tasks.pairwise import win

_RIDGE = 1e-3  # keeps the fit finite where length alone tells every win
_TINY = 1e-6  # and where one model wins every time
_STEPS = 100


def evaluate(subject: Subject, rows: Sequence[Row]) -> Metrics:
    """The rates of `win_rates`, of the model's greedy answers to the prompts against those of `subject.rival`.

    Both answers to a prompt are scored as they were written: with the end mark if it is there. `empty` and `rival_empty`
    count answers without a character, which are scored like any other; `unfinished` and `rival_unfinished`: shares.

    Raises RuntimeError without a reward model.
    """
    if subject.reward is None or subject.rival is None:
        raise RuntimeError("the preference task was started without a reward model or without a rival")
    prompts = [encode_prompt(subject.folder.tokenizer, row["prompt"]) for row in rows]
    own = subject.engine.generate(prompts, subject.settings.open_tokens, label="answers of the model")
    subject.engine.load(subject.rival)
    try:
        other = subject.engine.generate(prompts, subject.settings.open_tokens, label="answers of its rival")
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
    """`win_rate` with its 95 % `interval`, a tie being half a win; `rival_win_rate`, counted in the other order; `ties`;
    `length_controlled`: the rate at equal length; `length_effect`: what a standard deviation more of length adds to the
    log-odds of winning; `mean_length` and `rival_mean_length`, in characters.
    """
    wins = [win(one, two) for one, two in zip(own, other, strict=True)]
    rate, effect = _at_equal_length(wins, [a - b for a, b in zip(own_length, other_length, strict=True)])
    return {
        "win_rate": fmean(wins),
        "interval": mean_interval(wins),
        "rival_win_rate": fmean(win(two, one) for one, two in zip(own, other, strict=True)),
        "ties": sum(value == 0.5 for value in wins),
        "length_controlled": rate,
        "length_effect": effect,
        "mean_length": fmean(own_length),
        "rival_mean_length": fmean(other_length),
        "n": len(wins),
    }


def _at_equal_length(wins: Sequence[float], differences: Sequence[int]) -> tuple[float, float]:
    """sigmoid(a) and b of P(win) = sigmoid(a + b tanh(d / std d)), by Newton's method on the ridged likelihood."""
    y_N, d_N = np.asarray(wins), np.asarray(differences, dtype=float)
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
