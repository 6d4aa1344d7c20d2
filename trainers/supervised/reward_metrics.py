"""What the scores of held-out pairs say of a reward model: accuracy, calibration, distribution, correlation with length.

P pairs. Scores are as trained: by Bradley-Terry's model an answer is better than the other with probability
sigmoid(score - other score). Dividing scores by their deviation, as the export does, leaves all of it as it was but the
calibration, for which a difference of exported scores is to be multiplied by `score_std` again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BINS = 10
"""Of confidences from 1/2 to 1."""
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
HISTOGRAM_BINS = 20


@dataclass(frozen=True)
class Scored:
    """Held-out pairs with their scores; each array has P elements."""

    chosen: Floats
    rejected: Floats
    chosen_tokens: Floats
    rejected_tokens: Floats
    flaws: NDArray[np.str_]

    @property
    def differences(self) -> Floats:
        """Chosen less rejected."""
        return self.chosen - self.rejected

    @property
    def right(self) -> Floats:
        """1 where the chosen answer has more, 0 where the rejected one has, 1/2 for a tie, which is a coin's toss."""
        return (self.differences > 0) + 0.5 * (self.differences == 0)

    @property
    def all(self) -> Floats:
        """The scores of all 2P answers."""
        return np.concatenate([self.chosen, self.rejected])

    @property
    def tokens(self) -> Floats:
        """The lengths of all 2P answers, in the order of `all`."""
        return np.concatenate([self.chosen_tokens, self.rejected_tokens])


def metrics(scored: Scored) -> dict[str, float]:
    """The figures of one held-out evaluation.

    `heldout_loss` is Bradley-Terry's without margins and smoothing, so that settings can be compared by it. Correlations
    are of answers' scores with their lengths in tokens, not a number where all scores or all lengths are the same.
    """
    from scipy.stats import rankdata  # takes a second, which the driver, who wants a baseline only, need not wait

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
    """The reliability diagram and the distribution of the scores, as JSON; scores are as the export gives them."""
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
    """Of pairs in bins of equal width by the confidence in the answer with the higher score: how often it was right.

    A row for each bin that has pairs: `pairs`, and the means of `confidence`, sigmoid(|difference|), and `accuracy`.
    """
    confidence = 1.0 / (1.0 + np.exp(-np.abs(differences)))
    right = (differences > 0) + 0.5 * (differences == 0)
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
    """Expected calibration error: mean over pairs of |accuracy - confidence| of their bin (Guo et al. 2017, eq. 3)."""
    pairs = sum(row["pairs"] for row in rows)
    return sum(row["pairs"] * abs(row["accuracy"] - row["confidence"]) for row in rows) / pairs


def correlation(one: Floats, other: Floats) -> float:
    """Pearson's; of ranks it is Spearman's. Not a number where either is constant."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return math.nan
    return float(np.corrcoef(one, other)[0, 1])


def length_baseline(chosen: Floats, rejected: Floats) -> float:
    """Share of pairs told apart by the answers' lengths alone, in the better of the two directions; ties count half."""
    longer = float(((chosen > rejected) + 0.5 * (chosen == rejected)).mean())
    return max(longer, 1.0 - longer)


def centred_and_scaled(figures: Mapping[str, float]) -> tuple[float, float]:
    """By what the head is divided, and what is then taken off its scalar, so that held-out scores have mean 0 and
    deviation 1. A head that gives every answer the same score keeps its scale.
    """
    std = figures["score_std"] or 1.0
    return std, figures["score_mean"] / std


def _distribution(values: Floats, edges: Floats) -> dict[str, Any]:
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "quantiles": {
            f"{q:g}": float(value) for q, value in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)
        },
        "histogram": np.histogram(values, edges)[0].tolist(),
    }
