from __future__ import annotations

import random

import pytest

from evals.metrics.rouge import longest_common_subsequence, rouge

# F scores of the rouge-score package, version 0.1.2, on the same texts with a space between characters.
REFERENCE = [
    ("您好，请多喝水。", "您好，建议多喝温水，注意休息。", 0.608696, 0.285714, 0.608696),
    ("甲乙丙丁", "丁丙乙甲", 1.0, 0.0, 0.25),
    ("血压血压血压高", "血压高", 0.6, 0.5, 0.6),
    ("高", "高血压", 0.5, 0.0, 0.5),
    ("头痛可以服用布洛芬缓解", "布洛芬可以缓解头痛", 0.9, 0.555556, 0.5),
]


@pytest.mark.parametrize(("answer", "reference", "one", "two", "longest"), REFERENCE)
def test_equals_the_reference_implementation(
    answer: str, reference: str, one: float, two: float, longest: float
) -> None:
    expected = {"rouge_1": one, "rouge_2": two, "rouge_l": longest}
    assert rouge(answer, reference) == pytest.approx(expected, abs=1e-6)


def test_identical_texts_score_one_and_unrelated_or_empty_ones_zero() -> None:
    assert rouge("多休息，多喝水", "多休息，多喝水") == {"rouge_1": 1.0, "rouge_2": 1.0, "rouge_l": 1.0}
    assert rouge("天地玄黄", "多休息多喝水") == {"rouge_1": 0.0, "rouge_2": 0.0, "rouge_l": 0.0}
    assert rouge("", "多休息") == {"rouge_1": 0.0, "rouge_2": 0.0, "rouge_l": 0.0}


def test_white_space_is_no_character() -> None:
    assert rouge("多 休\n息", "多休息")["rouge_2"] == 1.0


def quadratic(a: str, b: str) -> int:
    lengths = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            lengths[i + 1][j + 1] = lengths[i][j] + 1 if x == y else max(lengths[i][j + 1], lengths[i + 1][j])
    return lengths[-1][-1]


def test_longest_common_subsequence_equals_the_textbook_programme() -> None:
    rng = random.Random(0)
    lengths = set()
    for _ in range(300):
        a, b = ("".join(rng.choices("甲乙丙丁戊", k=rng.randint(0, 90))) for _ in range(2))
        lengths.add(longest_common_subsequence(a, b))
        assert longest_common_subsequence(a, b) == quadratic(a, b)
    assert max(lengths) > 30
