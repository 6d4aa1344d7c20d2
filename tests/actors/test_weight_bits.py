"""Sums of bits: equal for equal weights however they are cut, and unequal for others."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actors.weight_bits import SentBits, bit_sum, modulo

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@given(
    st.sampled_from(DTYPES),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 9),
    st.integers(0, 2**32 - 1),
)
def test_parts_add_up_and_zeros_add_nothing(dtype: torch.dtype, rows: int, columns: int, cut: int, seed: int) -> None:
    whole = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).to(dtype)
    expected = modulo(int(bit_sum(whole, dtype)))
    padded = torch.cat([whole, torch.zeros(3, columns, dtype=dtype)])
    assert modulo(int(bit_sum(whole[:cut], dtype)) + int(bit_sum(whole[cut:], dtype))) == expected
    assert modulo(int(bit_sum(whole[:, :cut], dtype)) + int(bit_sum(whole[:, cut:], dtype))) == expected
    assert modulo(int(bit_sum(padded, dtype))) == modulo(int(bit_sum(whole.T, dtype))) == expected


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_smallest_change_of_one_element_is_seen(dtype: torch.dtype) -> None:
    weights = torch.linspace(-2, 2, 4001).to(dtype)
    changed = weights.clone()
    changed[1234] = torch.nextafter(changed[1234].float(), torch.tensor(9.0)).to(dtype) if dtype == torch.float32 else 3
    assert bit_sum(changed, dtype) != bit_sum(weights, dtype)
    assert bit_sum(-weights[:2000], dtype) != bit_sum(weights[:2000], dtype)


def test_weights_are_added_in_the_engines_dtype() -> None:
    blocks = [{"a": torch.randn(5, 3), "b": torch.randn(7)}, {"c": torch.randn(2, 2)}]
    sent = SentBits(torch.bfloat16)
    assert list(sent.over_blocks(blocks)) == blocks
    expected = sum(int(bit_sum(tensor.bfloat16(), torch.bfloat16)) for block in blocks for tensor in block.values())
    assert sent.total == modulo(expected)
    assert [block.keys() for block in sent.over_blocks(blocks[:1])] == [{"a", "b"}]
    assert sent.total == modulo(sum(int(bit_sum(tensor.bfloat16(), torch.bfloat16)) for tensor in blocks[0].values()))
