from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from data.packing import cut_documents, fit_lengths, pack_blocks
from data.tables import DataError

END = 2
CORPORA = Path(os.environ.get("CHIMED_CORPORA", Path(__file__).parents[3] / "shared/corpora"))


def corpus(count: int = 50, seed: int = 0) -> list[np.ndarray]:
    """Documents of 1..40 tokens that can be told apart (document d holds 100 + d) and end with END."""
    rng = np.random.default_rng(seed)
    return [np.array([100 + d] * rng.integers(0, 40) + [END], dtype=np.int32) for d in range(count)]


def test_blocks_are_exactly_full_and_their_lengths_add_up() -> None:
    blocks = pack_blocks(corpus(), 64, seed=0).to_pylist()
    assert {len(block["tokens"]) for block in blocks} == {64}
    assert {sum(block["lengths"]) for block in blocks} == {64}
    assert len(blocks) == -(-sum(map(len, corpus())) // 64)


def test_every_token_of_the_corpus_is_there_and_fewer_than_a_block_twice() -> None:
    packed = np.concatenate([block["tokens"] for block in pack_blocks(corpus(), 64, seed=3).to_pylist()])
    whole = np.concatenate(corpus())
    counts = np.bincount(packed, minlength=200) - np.bincount(whole, minlength=200)
    assert (counts >= 0).all()
    assert 0 <= counts.sum() < 64


def test_no_sequence_crosses_a_document() -> None:
    for block in pack_blocks(corpus(), 64, seed=1).to_pylist():
        start = 0
        for length in block["lengths"]:
            sequence = block["tokens"][start : start + length]
            assert END not in sequence[:-1]
            assert len(set(sequence) - {END}) <= 1
            start += length


def test_a_document_longer_than_a_block_goes_on_in_the_next() -> None:
    blocks = pack_blocks([np.arange(10, 20, dtype=np.int32)], 4, seed=0).to_pylist()
    assert [block["tokens"] for block in blocks] == [[10, 11, 12, 13], [14, 15, 16, 17], [18, 19, 10, 11]]
    assert [block["lengths"] for block in blocks] == [[4], [4], [2, 2]]


def test_a_corpus_smaller_than_half_a_block_is_repeated_until_the_block_is_full() -> None:
    (block,) = pack_blocks([np.array([5, END], dtype=np.int32)], 7, seed=0).to_pylist()
    assert block == {"tokens": [5, 2, 5, 2, 5, 2, 5], "lengths": [2, 2, 2, 1]}


def test_blocks_follow_the_seed() -> None:
    assert pack_blocks(corpus(), 64, seed=7).equals(pack_blocks(corpus(), 64, seed=7))
    assert not pack_blocks(corpus(), 64, seed=7).equals(pack_blocks(corpus(), 64, seed=8))


def test_evaluation_rows_keep_documents_whole() -> None:
    rows = cut_documents([np.array([7, 8, END]), np.arange(10, 15)], 3).to_pylist()
    assert [row["tokens"] for row in rows] == [[7, 8, END], [10, 11, 12], [13, 14]]
    assert [row["lengths"] for row in rows] == [[3], [3], [2]]


@pytest.mark.parametrize("documents", [[], [np.array([1, END]), np.array([])]])
def test_nothing_to_pack_is_refused(documents: list[np.ndarray]) -> None:
    with pytest.raises(DataError, match=r"no documents|row 1: the document has no tokens"):
        pack_blocks(documents, 8, seed=0)


def test_too_long_samples_are_refused_cut_or_dropped() -> None:
    with pytest.raises(DataError, match=r"sft.train: row 1 has 9 tokens, more than data.max_tokens 8 \(2 such rows\)"):
        fit_lengths([8, 9, 3, 10], 8, "refuse", "sft.train")
    cut, dropped = (fit_lengths([8, 9, 3, 10], 8, how, "sft.train") for how in ("cut", "drop"))
    assert (cut.kept, cut.cut, cut.dropped) == ([0, 1, 2, 3], 2, 0)
    assert (dropped.kept, dropped.cut, dropped.dropped) == ([0, 2], 0, 2)
    assert str(cut) == "4 samples, 2 of them cut"
    assert str(dropped) == "2 samples, 2 left out as too long"
    with pytest.raises(DataError, match=r"every sample"):
        fit_lengths([9], 8, "drop", "sft.train")


@pytest.mark.slow
@pytest.mark.skipif(not CORPORA.is_dir(), reason="there is no folder of real corpora; name one with CHIMED_CORPORA")
def test_blocks_of_the_classics_are_full() -> None:
    from data.prepare.options import Options
    from data.prepare.reading.readers import read
    from data.prepare.reading.sources import describe, find_files, pieces_of

    files, _ = find_files([str(CORPORA / "tcm_classics")])
    found = [one for file in files for piece in pieces_of(describe(file)) for one in read(piece, Options("text"))]
    documents = [np.frombuffer(one.record["text"].encode("utf-32-le"), np.int32) for one in found if not one.bad]
    blocks = pack_blocks(documents, 4096, seed=0)  # a character a token: the fewest documents a block
    assert set(map(len, blocks.column("tokens"))) == {4096}
    assert sum(map(len, documents)) / (4096 * blocks.num_rows) > 0.99  # what is left came twice
    assert max(map(sum, blocks.column("lengths").to_pylist())) == 4096
