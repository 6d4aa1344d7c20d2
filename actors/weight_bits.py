"""The sum of the bits of weights, by which two copies are compared exactly, however they are divided or joined."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_MODULUS = 2**64


def bit_sum(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns the sum of the elements' bits, each read as a signed integer, modulo 2**64: () int64.

    Sums of parts add up to the sum of the whole, and zeros, with which vLLM pads a vocabulary, add nothing.

    Args:
        tensor: any tensor.
        dtype: the engines' dtype, to which floating-point numbers are converted first. vLLM keeps some parameters in
            float32 in any engine.
    """
    given = tensor.detach().to(dtype) if tensor.is_floating_point() else tensor
    bits = given.view(_INTEGERS[given.element_size()])
    if bits.device.type == "cpu":  # NumPy takes a sixth of torch's time
        return torch.tensor(bits.numpy().sum(dtype=np.int64))
    return bits.sum(dtype=torch.int64)


def modulo(total: int) -> int:
    """Returns a sum of bit sums as one number from 0 to 2**64 - 1."""
    return total % _MODULUS


class SentBits:
    """Adds up the bits of weights on their way, as they are in the engines' dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype, self._sums = dtype, list[Tensor]()

    def over_blocks(self, blocks: Iterable[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
        """Yields `blocks`, weights by name, unchanged, and starts a new sum with them."""
        self._sums = []
        for block in blocks:
            self._sums += [bit_sum(tensor, self._dtype) for tensor in block.values()]
            yield block

    @property
    def total(self) -> int:
        """The sum of all weights that `over_blocks` yielded last."""
        return modulo(sum(int(each) for each in self._sums))
