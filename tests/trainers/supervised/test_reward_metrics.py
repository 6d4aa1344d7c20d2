from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from trainers.supervised.reward_metrics import (
    Scored,
    calibration_error,
    centred_and_scaled,
    correlation,
    metrics,
    reliability,
    report,
)


def scored(pairs: int = 200) -> Scored:
    draw = np.random.default_rng(0)
    chosen, rejected = draw.normal(1.0, 2.0, pairs), draw.normal(0.0, 2.0, pairs)
    of_chosen, of_rejected = (np.round(50 + 10 * scores + draw.normal(0, 20, pairs)) for scores in (chosen, rejected))
    return Scored(chosen, rejected, of_chosen, of_rejected, flaws=np.array(["rude", "vague"] * (pairs // 2)))


def test_calibration_worked_by_hand() -> None:
    logit = math.log(0.72 / 0.28)  # a confidence of 0.72, in the bin from 0.7 to 0.75
    rows = reliability(np.array([logit, logit, -logit, 0.0]))
    assert rows == [
        {"pairs": 1, "confidence": 0.5, "accuracy": 0.5},
        {"pairs": 3, "confidence": pytest.approx(0.72), "accuracy": pytest.approx(2 / 3)},
    ]
    assert calibration_error(rows) == pytest.approx(0.75 * abs(2 / 3 - 0.72))


def test_scores_that_are_as_often_right_as_they_say_are_calibrated_and_ten_times_larger_ones_are_not() -> None:
    draw = np.random.default_rng(1)
    sizes = np.abs(draw.normal(0, 2, 20_000))
    differences = np.where(draw.random(20_000) < 1 / (1 + np.exp(-sizes)), sizes, -sizes)
    assert calibration_error(reliability(differences)) < 0.01
    assert calibration_error(reliability(10 * differences)) > 0.15


def test_a_certain_pair_falls_into_the_last_bin() -> None:
    assert reliability(np.array([800.0])) == [{"pairs": 1, "confidence": 1.0, "accuracy": 1.0}]


def test_correlations_are_scipys() -> None:
    figures, of = metrics(scored()), scored()
    assert figures["heldout_length_pearson"] == pytest.approx(stats.pearsonr(of.all, of.tokens).statistic)
    assert figures["heldout_length_spearman"] == pytest.approx(stats.spearmanr(of.all, of.tokens).statistic)
    assert figures["heldout_length_pearson"] > 0.5
    assert math.isnan(correlation(np.ones(3), np.arange(3.0)))


def test_accuracy_and_loss_of_all_and_by_flaw() -> None:
    figures, of = metrics(scored()), scored()
    assert figures["heldout_accuracy"] == (of.chosen > of.rejected).mean()
    assert figures["heldout_accuracy/vague"] == (of.chosen > of.rejected)[1::2].mean()
    assert figures["heldout_loss"] == pytest.approx(np.log1p(np.exp(-(of.chosen - of.rejected))).mean())


def test_the_distribution_is_that_of_the_exported_scores() -> None:
    of, figures = scored(), metrics(scored())
    scale, mean = centred_and_scaled(figures)
    exported = of.all / scale - mean
    assert exported.mean() == pytest.approx(0.0, abs=1e-12)
    assert exported.std() == pytest.approx(1.0)
    found = report(of)["scores"]
    assert found["chosen"]["quantiles"]["0.5"] == pytest.approx(np.median(exported[:200]))
    assert found["rejected"]["mean"] == pytest.approx(exported[200:].mean())
    assert sum(found["chosen"]["histogram"]) == sum(found["rejected"]["histogram"]) == 200


def test_a_head_that_gives_every_answer_the_same_score_keeps_its_scale() -> None:
    assert centred_and_scaled({"score_std": 0.0, "score_mean": 2.0}) == (1.0, 2.0)
