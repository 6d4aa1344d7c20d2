"""Reward-model metrics on held-out pairs: accuracy, calibration, score distribution, correlation with length.

Shapes: P pairs. Scores are those before the export: in the Bradley-Terry model, one response is better than the other
with probability sigmoid(score - other score). The export divides scores by their standard deviation, which affects only
the calibration: to get the probability from exported scores, multiply their difference by `score_std`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.pairs import length_baseline, wins

Floats = NDArray[np.float64]

BINS = 10
"""Bins of the reliability diagram, for confidences from 1/2 to 1."""
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
HISTOGRAM_BINS = 20


@dataclass(frozen=True)
class Scored:
    """Held-out pairs: their scores, response lengths in tokens, and flaws. Every array is (P,)."""

    chosen: Floats
    rejected: Floats
    chosen_tokens: Floats
    rejected_tokens: Floats
    flaws: NDArray[np.str_]

    @property
    def differences(self) -> Floats:
        """Chosen score minus rejected score, (P,)."""
        return self.chosen - self.rejected

    @property
    def right(self) -> Floats:
        """Whether each pair is ranked correctly, (P,): 1 if the chosen score is higher, 0 if lower, 1/2 for a tie."""
        return wins(self.chosen, self.rejected)

    @property
    def all(self) -> Floats:
        """The scores of all responses, (2P,)."""
        return np.concatenate([self.chosen, self.rejected])

    @property
    def tokens(self) -> Floats:
        """The lengths of all responses in tokens, (2P,), in the order of `all`."""
        return np.concatenate([self.chosen_tokens, self.rejected_tokens])


def metrics(scored: Scored) -> dict[str, float]:
    """Returns the metrics of one held-out evaluation, by name.

    `heldout_loss` is the Bradley-Terry loss without margins and label smoothing, so that runs with different settings
    can be compared. The correlations are between the responses' scores and their lengths in tokens; they are NaN if all
    scores or all lengths are equal.
    """
    from scipy.stats import rankdata  # the import takes a second, and the driver does not need it

    right = scored.right
    return {
        "heldout_loss": float(np.logaddexp(0.0, -scored.differences).mean()),
        "heldout_margin": float(scored.differences.mean()),
        "heldout_accuracy": float(right.mean()),
        **{
            f"heldout_accuracy/{flaw}": float(right[scored.flaws == flaw].mean())
            for flaw in sorted(set(scored.flaws.tolist()))
        },
        "heldout_ece": calibration_error(reliability(scored.differences)),
        "heldout_length_pearson": correlation(scored.all, scored.tokens),
        "heldout_length_spearman": correlation(rankdata(scored.all), rankdata(scored.tokens)),
        "length_baseline": length_baseline(scored.chosen_tokens, scored.rejected_tokens),
        "score_mean": float(scored.all.mean()),
        "score_std": float(scored.all.std()),
    }


def report(scored: Scored) -> dict[str, Any]:
    """Returns the reliability diagram and the distribution of the scores, normalized as in the export, as JSON."""
    mean, std = float(scored.all.mean()), float(scored.all.std()) or 1.0
    sides = {"chosen": (scored.chosen - mean) / std, "rejected": (scored.rejected - mean) / std}
    edges = np.histogram_bin_edges(np.concatenate(list(sides.values())), HISTOGRAM_BINS)
    return {
        "pairs": len(scored.chosen),
        "reliability": reliability(scored.differences),
        "scores": {name: _distribution(values, edges) for name, values in sides.items()},
        "histogram_edges": edges.tolist(),
    }


def reliability(differences: Floats) -> list[dict[str, float]]:
    """Returns the reliability diagram of pairs with score differences (P,).

    Pairs are grouped into `BINS` bins of equal width by confidence, sigmoid(|difference|). Each non-empty bin has a
    row: `pairs`, the number of pairs; `confidence`, their mean confidence; `accuracy`, the share ranked correctly.
    """
    confidence = 1.0 / (1.0 + np.exp(-np.abs(differences)))
    right = wins(differences, np.zeros_like(differences))
    bins = np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
    return [
        {
            "pairs": int((bins == one).sum()),
            "confidence": float(confidence[bins == one].mean()),
            "accuracy": float(right[bins == one].mean()),
        }
        for one in np.unique(bins)
    ]


def calibration_error(rows: list[dict[str, float]]) -> float:
    """Computes the expected calibration error from the rows of `reliability`: the mean of |accuracy - confidence|.

    The mean is over pairs, each with the values of its bin (Guo et al. 2017, eq. 3).
    """
    pairs = sum(row["pairs"] for row in rows)
    return sum(row["pairs"] * abs(row["accuracy"] - row["confidence"]) for row in rows) / pairs


def correlation(one: Floats, other: Floats) -> float:
    """Returns the Pearson correlation of two arrays of shape (2P,); NaN if either is constant.

    The Pearson correlation of ranks is the Spearman correlation.
    """
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return math.nan
    return float(np.corrcoef(one, other)[0, 1])


def centred_and_scaled(metrics: Mapping[str, float]) -> tuple[float, float]:
    """Returns the divisor of the head's weights, and the mean to subtract from the scaled scores.

    They are computed from the held-out metrics, so that held-out scores get mean 0 and standard deviation 1. A head
    that gives all responses the same score keeps its scale.
    """
    std = metrics["score_std"] or 1.0
    return std, metrics["score_mean"] / std


def _distribution(values: Floats, edges: Floats) -> dict[str, Any]:
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "quantiles": {
            f"{q:g}": float(value) for q, value in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)
        },
        "histogram": np.histogram(values, edges)[0].tolist(),
    }
