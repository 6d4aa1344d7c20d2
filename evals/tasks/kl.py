"""How far a model has moved from its reference: KL(model || reference) on the model's own samples."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

from evals.models.subject import Metrics, Row, Subject


def evaluate(subject: Subject, rows: Sequence[Row]) -> Metrics:
    """`per_sequence`: mean over samples of the sum over the answer's tokens of log p_model - log p_reference, an
    unbiased estimate of the KL divergence between the two distributions of answers, with its `standard_error`;
    `per_token`: the same total divided by all answer tokens.

    Both log-probabilities come from the same code, so that a model's divergence from itself is exactly 0.

    Raises RuntimeError without a reference model.
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
    """The metrics from both models' log-probabilities of whole sequences, the last `counts[i]` of them an answer's."""
    sums = [sum(p[-n:]) - sum(q[-n:]) for p, q, n in zip(own, other, counts, strict=True)]
    return {
        "per_sequence": fmean(sums),
        "standard_error": stdev(sums) / len(sums) ** 0.5 if len(sums) > 1 else 0.0,
        "per_token": sum(sums) / sum(counts),
        "n": len(sums),
    }
