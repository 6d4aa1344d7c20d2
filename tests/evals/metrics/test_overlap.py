from __future__ import annotations

import random

import pytest
from rouge_score.rouge_scorer import RougeScorer

from evals.metrics.overlap import overlap
from evals.metrics.rouge import rouge


class Characters:
    """What rouge-score takes for a tokenizer; its own knows no Chinese."""

    def tokenize(self, text: str) -> list[str]:
        return list("".join(text.split()))


def test_rouge_equals_rouge_score_on_random_texts() -> None:
    scorer, rng = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Characters()), random.Random(0)
    for _ in range(200):
        answer, reference = ("".join(rng.choices("高血压低 血糖", k=rng.randint(0, 40))) for _ in range(2))
        theirs, ours = scorer.score(reference, answer), rouge(answer, reference)
        assert ours["rouge_1"] == pytest.approx(theirs["rouge1"].fmeasure, abs=1e-12)
        assert ours["rouge_2"] == pytest.approx(theirs["rouge2"].fmeasure, abs=1e-12)
        assert ours["rouge_l"] == pytest.approx(theirs["rougeL"].fmeasure, abs=1e-12)


def test_every_pair_counts_and_what_is_empty_is_named() -> None:
    scores = overlap(["多休息", " \n", "多喝水"], ["多休息", "按时服药", ""])
    assert scores["rouge_l"] == pytest.approx(1 / 3)
    assert (scores["empty"], scores["empty_references"], scores["n"]) == (1, 1, 3)
    assert scores["length_ratio"] == pytest.approx(6 / 7)
    low, high = scores["rouge_l_interval"]
    assert 0 <= low < 1 / 3 < high <= 1
    assert 0 < scores["bleu_1"] < 100


def test_only_empty_references_score_nothing() -> None:
    scores = overlap(["多休息"], [""])
    assert (scores["length_ratio"], scores["rouge_l"], scores["bleu_1"], scores["chrf"]) == (0, 0, 0, 0)
