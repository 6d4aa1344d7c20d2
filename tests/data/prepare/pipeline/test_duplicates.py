"""Exact duplicates, candidates of near ones, and the windows of tokens, each against what it is defined as."""

from __future__ import annotations

import random

import numpy as np
import pytest

from data.prepare.cleaning.steps import repeated_share
from data.prepare.likeness.tokens import stretch_hashes, tokenize, windows
from data.prepare.likeness.wording import LONG, PERMUTATIONS, fingerprints
from data.prepare.pipeline.duplicates import NONE, Stored, candidates, exact_duplicates, same_wording

LETTERS = "头痛发热咳嗽乏力胸闷腹泻心悸失眠纳差便秘盗汗自汗"


def draw(seed, length):
    return "".join(random.Random(seed).choices(LETTERS, k=length))


def tokens_in(text):
    found = tokenize(text)
    return [text[start:end] for start, end in zip(found.starts, found.ends, strict=True)]


def test_tokens_are_characters_words_numbers_and_signs():
    assert tokens_in("每日1.5片，ＡＢ型（COVID-19）≥38℃。") == [*"每日", "1", ".", "5", "片", "ＡＢ", "型", "COVID", "-", "19", "≥", "38", "℃"]  # fmt: skip
    assert tokens_in("𠮷😊a b 1 2, 3") == ["𠮷", "a", "b", "1", "2", "3"]
    same = ("Ａb１，型", "aB1型 ")
    assert len({tuple(tokenize(text).hashes.tolist()) for text in same}) == 1
    other = ("1.5", "15", "1 5", "1/5", "10²", "102", "-5", "5", "ab", "a b")
    assert len({tuple(tokenize(text).hashes.tolist()) for text in other}) == len(other)


def test_windows_and_stretches_are_equal_where_their_values_are():
    hashes = tokenize(draw(1, 300) + draw(1, 50)).hashes
    values = [tuple(hashes[place : place + 7].tolist()) for place in range(344)]
    found = windows(hashes, 7)
    assert len(set(zip(found.tolist(), values, strict=True))) == len(set(values)) == len(set(found.tolist()))
    assert len(windows(hashes[:6], 7)) == 0
    starts = np.array([0, 300, 5, 9])
    stretches = stretch_hashes(hashes, starts, np.array([50, 350, 55, 9]))
    assert stretches[0] == stretches[1] != stretches[2]
    assert stretches[3] == 0


def test_repeated_share_is_that_of_windows_seen_before():
    assert repeated_share(draw(1, 500)) == 0
    assert repeated_share("好" * 60) == 0  # short
    assert repeated_share(draw(1, 200) * 5) == pytest.approx(1 - 200 / 991)


def test_fingerprints_are_those_of_the_row_alone():
    texts = [draw(1, 300), "头", draw(2, 4), "，", draw(3, LONG), draw(4, 3000) + "。" + draw(5, 9), draw(1, 300)]
    rows = [{"text": text} for text in texts]
    prints, signatures = fingerprints(rows, "same")
    for row, one, signature in zip(rows, prints, signatures, strict=True):
        alone = fingerprints([row], "same")
        assert (alone[0] == one).all()
        assert (alone[1] == signature).all()
    assert (prints[0] == prints[-1]).all()
    assert prints.all(axis=1).tolist() == [True, False, True, False, True, True, True]
    assert signatures.any(axis=1).tolist() == [True, False, False, False, True, True, True]


def test_exact_duplicates_name_the_first():
    digests = np.array([[1, 1], [2, 1], [1, 1], [1, 2], [1, 1], [2, 1]], np.uint64)
    assert exact_duplicates(digests).tolist() == [NONE, NONE, 0, NONE, 0, 1]


def test_one_fingerprint_in_common_is_enough():
    prints = np.array([[1, 5], [2, 6], [3, 5], [3, 7], [4, 7], [9, 9]], np.uint64)
    assert same_wording(prints).tolist() == [NONE, NONE, 0, 0, 0, NONE]


def test_candidates_have_half_of_the_rare_values_in_common(tmp_path):
    rng = np.random.default_rng(1)
    signatures = rng.integers(0, 2**32, (40, PERMUTATIONS), np.uint32)
    signatures[7, : PERMUTATIONS // 2] = signatures[3, : PERMUTATIONS // 2]
    signatures[9, : PERMUTATIONS // 2 - 1] = signatures[3, : PERMUTATIONS // 2 - 1]
    signatures[20:, :-3] = signatures[20, :-3]  # a template
    stored = Stored(tmp_path)
    stored.add(signatures[:10])
    stored.add(signatures[10:])
    assert candidates(stored).tolist() == [[3, 7]]
    (tmp_path / "none").mkdir()
    assert candidates(Stored(tmp_path / "none")).shape == (0, 2)
