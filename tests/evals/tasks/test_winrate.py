from __future__ import annotations

import math
import random

import pytest
from sklearn.linear_model import LogisticRegression

from evals.tasks.winrate import win_rates


def test_wins_ties_and_both_orders() -> None:
    rates = win_rates([1.0, 2.0, 0.0, 3.0], [0.0, 2.0, 1.0, 1.0], [5] * 4, [5] * 4)
    assert (rates["win_rate"], rates["ties"], rates["n"]) == (2.5 / 4, 1, 4)
    assert rates["rival_win_rate"] == 1 - rates["win_rate"]
    assert rates["length_controlled"] == pytest.approx(rates["win_rate"], abs=0.01)
    assert rates["length_effect"] == 0.0


def test_a_judge_of_length_alone_is_even_at_equal_length() -> None:
    rng = random.Random(0)
    own, other = ([rng.randint(10, 200) for _ in range(400)] for _ in range(2))
    own = [length + 40 for length in own]
    rates = win_rates([float(n) for n in own], [float(n) for n in other], own, other)
    assert rates["win_rate"] > 0.65
    assert rates["length_controlled"] == pytest.approx(0.5, abs=0.1)
    assert rates["length_effect"] > 2


def test_who_always_wins_has_a_finite_fit() -> None:
    rates = win_rates([1.0] * 20, [0.0] * 20, [5] * 20, [3] * 20)
    assert (rates["win_rate"], rates["length_effect"]) == (1.0, 0.0)
    assert 0.999 < rates["length_controlled"] < 1


def test_a_judge_of_content_is_not_moved() -> None:
    rng = random.Random(1)
    own, other = ([rng.randint(10, 200) for _ in range(600)] for _ in range(2))
    rewards = [float(rng.random() < 0.8) for _ in own]
    rates = win_rates(rewards, [0.5] * 600, own, other)
    assert rates["length_controlled"] == pytest.approx(rates["win_rate"], abs=0.02)
    assert abs(rates["length_effect"]) < 0.4


def test_the_fit_equals_scikit_learns() -> None:
    rng = random.Random(2)
    lengths = [rng.gauss(0, 50) for _ in range(300)]
    wins = [float(rng.random() < 1 / (1 + math.exp(-0.5 - length / 40))) for length in lengths]
    whole = [round(length) for length in lengths]
    rates = win_rates(wins, [0.5] * 300, whole, [0] * 300)
    spread = (sum((n - sum(whole) / 300) ** 2 for n in whole) / 300) ** 0.5
    features = [[math.tanh(n / spread)] for n in whole]
    theirs = LogisticRegression(C=1e6).fit(features, wins)
    assert rates["length_controlled"] == pytest.approx(1 / (1 + math.exp(-theirs.intercept_[0])), abs=0.01)
    assert rates["length_effect"] == pytest.approx(theirs.coef_[0][0], rel=0.05)
