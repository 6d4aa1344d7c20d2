"""KL(model || reference), estimated on samples from the model."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

from evals.models.subject import Metrics, Row, Subject


def evaluate(subject: Subject, rows: Sequence[Row]) -> Metrics:
    """Estimates the KL divergence of a model from its reference, in nats.

    Both log-probabilities are computed by the same code, so a model's divergence from itself is exactly 0.

    Returns:
        - `per_sequence`: mean over samples of the sum over response tokens of log p_model - log p_reference, an
          unbiased estimate of the KL divergence between the two response distributions, with its `standard_error`;
        - `per_token`: the same total divided by the number of response tokens;
        - `n`: number of samples.

    Raises:
        RuntimeError: there is no reference model.
    """
    if subject.reference is None:
        raise RuntimeError("the kl task was started without a reference model")
    samples = subject.samples(rows)
    sequences = [sample.ids for sample in samples]
    own = subject.engine.score(sequences, label="log-probs of the model")
    subject.engine.load(subject.reference)
    try:
        other = subject.engine.score(sequences, label="log-probs of the reference")
    finally:
        subject.engine.load(subject.folder)
    counts = [len(sample.answer.ids) for sample in samples]
    return kl_metrics(own, other, counts)


def kl_metrics(own: Sequence[Sequence[float]], other: Sequence[Sequence[float]], counts: Sequence[int]) -> Metrics:
    """Computes the metrics of `evaluate`.

    Args:
        own: the model's log-probabilities of each sequence's tokens.
        other: the reference's log-probabilities of the same tokens.
        counts: number of response tokens of each sequence, which are its last tokens.
    """
    sums = [sum(p[-n:]) - sum(q[-n:]) for p, q, n in zip(own, other, counts, strict=True)]
    return {
        "per_sequence": fmean(sums),
        "standard_error": stdev(sums) / len(sums) ** 0.5 if len(sums) > 1 else 0.0,
        "per_token": sum(sums) / sum(counts),
        "n": len(sums),
    }
