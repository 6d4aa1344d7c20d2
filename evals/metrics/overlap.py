"""Similarity of responses to references (BLEU, ROUGE, chrF, length) over a whole corpus, including empty texts."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from evals.metrics.bleu import bleu, chrf, script_like_bleu
from evals.metrics.intervals import mean_interval
from evals.metrics.rouge import rouge
from evals.models.subject import Metrics

_ROUGE = ("rouge_1", "rouge_2", "rouge_l")


def overlap(answers: Sequence[str], references: Sequence[str]) -> Metrics:
    """Computes the similarity of all responses to their references; an empty response or reference scores 0.

    Returns:
        - `bleu_1`, `bleu_2`, `chrf`: corpus scores, 0 to 100, see `evals.metrics.bleu`;
        - `rouge_1`, `rouge_2`, `rouge_l`: means, 0 to 1, and `rouge_l_interval`, the 95% confidence interval;
        - `script_like_bleu_1`, `script_like_bleu_2`: not BLEU, but comparable with published results;
        - `length_ratio`: characters of all responses / characters of all references; 0 if all references are empty;
        - `empty`, `empty_references`: number of empty responses and of empty references;
        - `n`: number of pairs.
    """
    answers, references = [text.strip() for text in answers], [text.strip() for text in references]
    pairs = list(zip(answers, references, strict=True))
    scores = [rouge(answer, reference) for answer, reference in pairs]
    length = sum(map(len, references))
    return {
        "bleu_1": bleu(answers, references, 1),
        "bleu_2": bleu(answers, references, 2),
        **{name: fmean(score[name] for score in scores) for name in _ROUGE},
        "rouge_l_interval": mean_interval([score["rouge_l"] for score in scores]),
        "chrf": chrf(answers, references),
        "script_like_bleu_1": script_like_bleu(answers, references, 1),
        "script_like_bleu_2": script_like_bleu(answers, references, 2),
        "length_ratio": sum(map(len, answers)) / length if length else 0.0,
        "empty": sum(not answer for answer in answers),
        "empty_references": sum(not reference for reference in references),
        "n": len(pairs),
    }
