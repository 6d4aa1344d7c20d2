"""BLEU against NLTK's, chrF against its paper's formula, on random texts and at the edges."""

from __future__ import annotations

import random
import warnings
from collections import Counter
from statistics import fmean

import pytest
from nltk.translate.bleu_score import corpus_bleu, sentence_bleu

from evals.metrics.bleu import bleu, chrf, script_like_bleu

WEIGHTS = {1: (1.0,), 2: (0.5, 0.5)}

# Two answers of a doctor to other questions than the references': what agrees is only that it is Chinese.
UNRELATED = ["您好，建议饭后服用布洛芬，注意休息。", "这种情况一般是普通感冒引起的，多喝温水就可以了。"]
REFERENCES = ["考虑腰椎间盘突出，请到骨科做核磁共振检查。", "孩子的疫苗可以推迟一周接种，不会影响效果。"]


def texts(seed: int, count: int) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choices("患者头痛发热多休息。", k=rng.randint(3, 60))) for _ in range(count)]


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_bleu_equals_nltk_on_characters(order: int, seed: int) -> None:
    answers, references = texts(seed, 30), texts(seed + 100, 30)
    expected = 100 * corpus_bleu([[list(r)] for r in references], [list(a) for a in answers], weights=WEIGHTS[order])
    assert bleu(answers, references, order) == pytest.approx(expected, abs=1e-9)
    assert 5 < expected < 95


def chrf_of_the_paper(answer: str, reference: str, beta: int = 2) -> float:
    """Popović (2015), equation 1: precision and recall are means over the orders that both texts have."""
    precisions, recalls = [], []
    for n in range(1, min(6, len(answer), len(reference)) + 1):
        a, b = (Counter(text[i : i + n] for i in range(len(text) - n + 1)) for text in (answer, reference))
        matched = (a & b).total()
        precisions.append(matched / a.total())
        recalls.append(matched / b.total())
    p, r = fmean(precisions), fmean(recalls)
    return (1 + beta**2) * p * r / (beta**2 * p + r) if p + r else 0.0


def test_chrf_is_that_of_its_paper() -> None:
    for answer, reference in zip(texts(0, 30), texts(100, 30), strict=True):
        assert chrf([answer], [reference]) == pytest.approx(100 * chrf_of_the_paper(answer, reference), abs=1e-9)


@pytest.mark.parametrize("order", [1, 2])
def test_script_like_bleu_is_nltk_fed_with_spaced_strings(order: int) -> None:
    answers, references = [*texts(0, 20), ""], [*texts(50, 20), "多休息"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = [
            sentence_bleu([" ".join(r)], " ".join(a), weights=WEIGHTS[order])
            for a, r in zip(answers, references, strict=True)
        ]
    assert script_like_bleu(answers, references, order) == pytest.approx(100 * sum(expected) / 21, abs=1e-9)


def test_identical_texts_get_100_and_unrelated_ones_what_they_deserve() -> None:
    for order in (1, 2):
        assert bleu(REFERENCES, REFERENCES, order) == pytest.approx(100)
        assert script_like_bleu(REFERENCES, REFERENCES, order) == pytest.approx(100)
    assert chrf(REFERENCES, REFERENCES) == pytest.approx(100)
    assert bleu(UNRELATED, REFERENCES, 1) < 30
    assert bleu(UNRELATED, REFERENCES, 2) < 10
    assert script_like_bleu(UNRELATED, REFERENCES, 2) > 3 * bleu(UNRELATED, REFERENCES, 2)
    assert chrf(UNRELATED, REFERENCES) < 10


def test_nothing_in_common_and_nothing_at_all_are_zero() -> None:
    for order in (1, 2):
        for answer, reference in (("天地玄黄", "多休息"), ("", "多休息"), ("多休息", "")):
            assert bleu([answer], [reference], order) == 0
            assert chrf([answer], [reference]) == 0
    assert script_like_bleu([""], ["多休息"], 1) == 0
    assert script_like_bleu(["天地玄黄"], ["多休息"], 1) == pytest.approx(200 / 7)  # the two spaces of seven items


def test_white_space_is_no_character_and_brevity_is_punished() -> None:
    assert bleu(["多 休\n息"], ["多休息"], 2) == pytest.approx(100)
    assert bleu(["多休"], ["多休息吧"], 1) == pytest.approx(100 * 2.718281828459045 ** (1 - 4 / 2))


def test_an_empty_answer_among_others_is_not_left_out() -> None:
    assert bleu(["多休息", ""], ["多休息", "多喝水"], 1) < 100
    assert chrf(["多休息", ""], ["多休息", "多喝水"]) < 100
