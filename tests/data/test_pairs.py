"""Pairs as token ids, and the accuracy of length alone."""

from __future__ import annotations

from typing import Any

import pytest
from chat_formats import families

from data.pairs import encode_pair, length_baseline, wins
from data.tables import DataError


def test_an_answer_ends_with_the_end_mark_unless_it_was_cut_off(tokenizer: Any) -> None:
    row = {"prompt": [{"role": "user", "content": "头痛"}], "chosen": "多休息。", "rejected": "多休"}
    for flaw, end in (("rude", "</s>"), ("cut_off", "")):
        (prompt, chosen), (same, rejected) = encode_pair(tokenizer, {**row, "flaw": flaw})
        assert tokenizer.decode(prompt) == tokenizer.decode(same) == "[human]:头痛\n[bot]:"
        assert tokenizer.decode(chosen) == "多休息。</s>"
        assert tokenizer.decode(rejected) == "多休" + end


def test_a_response_ends_with_its_turn_and_nothing_after_it() -> None:
    tokenizer = families()["chatml"].tokenizer
    row = {"prompt": [{"role": "user", "content": "头痛"}], "chosen": "多休息。", "rejected": "多休", "flaw": "cut_off"}
    (prompt, chosen), (_, rejected) = encode_pair(tokenizer, row)
    assert tokenizer.decode(prompt) == "<|im_start|>user\n头痛<|im_end|>\n<|im_start|>assistant\n"
    assert (tokenizer.decode(chosen), tokenizer.decode(rejected)) == ("多休息。<|im_end|>", "多休")


def test_an_empty_answer_is_refused(tokenizer: Any) -> None:
    row = {"prompt": [{"role": "user", "content": "头痛"}], "chosen": " ", "rejected": "多休", "flaw": "rude"}
    with pytest.raises(DataError, match="empty"):
        encode_pair(tokenizer, row)


def test_the_larger_side_wins_and_a_tie_is_half_a_win() -> None:
    assert wins([1.0, 0.5, 0.5], [0.5, 1.0, 0.5]).tolist() == [1.0, 0.0, 0.5]


@pytest.mark.parametrize(
    ("chosen", "rejected", "accuracy"),
    [
        ([5, 1, 1, 1], [1, 5, 5, 5], 0.75),  # the shorter wins
        ([3, 3, 1], [2, 2, 2], 2 / 3),  # the longer wins
        ([1, 2], [2, 1], 0.5),
        ([3, 3], [3, 1], 0.75),
    ],
)
def test_length_alone_ranks_in_its_better_direction(chosen: list[int], rejected: list[int], accuracy: float) -> None:
    assert length_baseline(chosen, rejected) == pytest.approx(accuracy)
