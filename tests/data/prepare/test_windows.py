"""Repetition, likeness and overlap, each against what it is defined as."""

from __future__ import annotations

import random

import numpy as np
import pytest

from data.prepare.duplicates import NONE, exact_duplicates, near_duplicates
from data.prepare.windows import PERMUTATIONS, Evaluation, repeated_share, signature, window_hashes

LETTERS = "头痛发热咳嗽乏力胸闷腹泻心悸失眠纳差便秘盗汗自汗"


def draw(seed, length):
    return "".join(random.Random(seed).choices(LETTERS, k=length))


def jaccard(one, other):
    sets = [{text[i : i + 5] for i in range(len(text) - 4)} for text in (one, other)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_windows_are_equal_where_their_characters_are():
    text = draw(1, 300) + draw(1, 50)
    hashes = window_hashes(text, 7)
    windows = [text[i : i + 7] for i in range(len(text) - 6)]
    assert len(hashes) == len(windows)
    assert len(set(hashes.tolist())) == len(set(windows))
    assert hashes[0] == hashes[300]
    assert len(window_hashes("头痛", 7)) == 1
    assert len(window_hashes("", 7)) == 0


def test_repeated_share_is_that_of_windows_seen_before():
    assert repeated_share(draw(1, 500)) == 0
    assert repeated_share("好" * 60) == 0  # short
    assert repeated_share(draw(1, 200) * 5) == pytest.approx(1 - 200 / 991)


@pytest.mark.parametrize("share", [0.02, 0.05, 0.2])
def test_signatures_estimate_jaccard(share):
    one = draw(1, 3000)
    rng = random.Random(2)
    other = "".join(rng.choice(LETTERS) if rng.random() < share else letter for letter in one)
    signatures = [np.frombuffer(signature(text), "<u4") for text in (one, other)]
    assert len(signatures[0]) == PERMUTATIONS
    deviation = (jaccard(one, other) * (1 - jaccard(one, other)) / PERMUTATIONS) ** 0.5
    assert abs((signatures[0] == signatures[1]).mean() - jaccard(one, other)) < 4 * deviation
    assert signature("") == signature("")


def test_exact_duplicates_name_the_first():
    digests = np.array([[1, 1], [2, 1], [1, 1], [1, 2], [1, 1], [2, 1]], np.uint64)
    assert exact_duplicates(digests).tolist() == [NONE, NONE, 0, NONE, 0, 1]


def test_near_duplicates_are_found_and_others_are_not():
    texts = [draw(seed, 400) for seed in range(60)]
    texts += [text[:200] + "，" + text[200:] for text in texts[:20]]  # Jaccard 0.98
    texts += [text[:250] + draw(99, 150) for text in texts[20:40]]  # below 0.5
    signatures = np.stack([np.frombuffer(signature(text), "<u4") for text in texts])
    found = near_duplicates(signatures, np.arange(len(texts)), 0.8)
    assert found[60:80].tolist() == list(range(20))
    assert (found[:60] == NONE).all()
    assert (found[80:] == NONE).all()
    without = near_duplicates(signatures, np.arange(1, len(texts)), 0.8)
    assert without[60] == NONE
    assert without[61] == 1


def test_overlap_with_evaluation_items():
    item = "下列关于心悸失眠盗汗的说法正确的是哪一项"
    evaluation = Evaluation.of_texts([item, "太短"], ngram=13)
    assert (evaluation.items, evaluation.short) == (2, 1)
    assert evaluation.shared("题：" + item[:6] + "， " + item[6:15] + "吗") == item[:13]
    assert evaluation.shared(item[:12]) == ""
    assert evaluation.shared(draw(1, 400)) == ""
    assert Evaluation.of_texts([], 13).shared(item) == ""
