"""Repetition, likeness and overlap, each against what it is defined as."""

from __future__ import annotations

import random

import numpy as np
import pytest

from data.prepare.duplicates import NONE, Stored, exact_duplicates, near_duplicates
from data.prepare.windows import PERMUTATIONS, Evaluation, bands, repeated_share, signatures, window_hashes

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
    first, second = signatures([one, other])
    assert len(first) == PERMUTATIONS
    deviation = (jaccard(one, other) * (1 - jaccard(one, other)) / PERMUTATIONS) ** 0.5
    assert abs((first == second).mean() - jaccard(one, other)) < 4 * deviation


def test_a_signature_is_that_of_the_text_alone():
    texts = [draw(1, 300), "头", draw(2, 4), "", draw(3, 5), draw(4, 3000), draw(1, 300)]
    together = signatures(texts)
    for text, one in zip(texts, together, strict=True):
        assert (signatures([text])[0] == one).all()
    assert (together[0] == together[-1]).all()
    assert len({one.tobytes() for one in together}) == len(texts) - 1


def test_bands_find_pairs_from_the_threshold_on():
    for threshold in (0.5, 0.8, 0.95):
        count, width = bands(threshold)
        assert count * width <= PERMUTATIONS
        found = [1 - (1 - likeness**width) ** count for likeness in (threshold - 0.25, threshold + 0.03)]
        assert found[0] < 0.25
        assert found[1] > 0.9


def test_exact_duplicates_name_the_first():
    digests = np.array([[1, 1], [2, 1], [1, 1], [1, 2], [1, 1], [2, 1]], np.uint64)
    assert exact_duplicates(digests).tolist() == [NONE, NONE, 0, NONE, 0, 1]


@pytest.fixture
def grouped(tmp_path_factory):
    def find(texts, threshold=0.8):
        stored = Stored(tmp_path_factory.mktemp("stored"), *bands(threshold))
        stored.add(signatures(texts[:7]))
        stored.add(signatures(texts[7:]))
        return near_duplicates(stored, threshold).tolist()

    return find


def test_near_duplicates_are_found_and_others_are_not(grouped):
    texts = [draw(seed, 400) for seed in range(60)]
    texts += [text[:200] + "，" + text[200:] for text in texts[:20]]  # Jaccard 0.98
    texts += [text[:250] + draw(99, 150) for text in texts[20:40]]  # below 0.5
    assert grouped(texts) == [NONE] * 60 + list(range(20)) + [NONE] * 20


def test_a_group_is_what_near_pairs_join(grouped):
    chain = [draw(7, 600)]
    for step in range(12):  # each near to the one before it, the last far from the first
        chain.append(chain[-1][: 30 * step] + "，" + chain[-1][30 * step + 12 :])
    assert jaccard(chain[0], chain[-1]) < 0.7
    texts = [draw(1, 300), *chain, draw(2, 300)]
    assert grouped(texts) == [NONE, NONE, *[1] * 12, NONE]
    assert grouped([texts[0], *reversed(chain), texts[-1]]) == [NONE, NONE, *[1] * 12, NONE]


def test_overlap_with_evaluation_items():
    item = "下列关于心悸失眠盗汗的说法正确的是哪一项"
    evaluation = Evaluation.of_texts([item, "太短"], ngram=13)
    assert (evaluation.items, evaluation.short) == (2, 1)
    assert evaluation.shared("题：" + item[:6] + "， " + item[6:15] + "吗") == item[:13]
    assert evaluation.shared(item[:12]) == ""
    assert evaluation.shared(draw(1, 400)) == ""
    assert Evaluation.of_texts([], 13).shared(item) == ""
