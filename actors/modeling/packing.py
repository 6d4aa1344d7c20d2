"""Boundaries of the sequences in a packed row, as attention needs them.

Shapes: T tokens of all sequences, S sequences.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Boundaries of the sequences of a packed row. Its tensors are created once and shared by all layers."""

    lengths: tuple[int, ...]  # S lengths whose sum is T
    device: torch.device

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max(self.lengths)

    @cached_property
    def runs(self) -> list[tuple[int, int]]:
        """(length, count) of each group of neighboring sequences of the same length."""
        return [(length, len(list(same))) for length, same in groupby(self.lengths)]

    @cached_property
    def bounds(self) -> Tensor:
        """Cumulative lengths from 0 to T, (S + 1,) int32."""
        return torch.tensor([0, *accumulate(self.lengths)], dtype=torch.int32, device=self.device)

    @cached_property
    def owners(self) -> Tensor:
        """Index of each token's sequence, (T,) int64."""
        lengths = torch.tensor(self.lengths, device=self.device)
        numbers = torch.arange(len(self.lengths), device=self.device)
        return torch.repeat_interleave(numbers, lengths, output_size=sum(self.lengths))  # output_size avoids a GPU sync

    @cached_property
    def positions(self) -> Tensor:
        """Each token's position in its own sequence, (T,) int64."""
        return torch.arange(len(self.owners), device=self.device) - self.bounds[:-1].long()[self.owners]

    @cached_property
    def _block_masks(self) -> dict[int | None, Any]:
        return {}

    def block_mask(self, window: int | None) -> Any:
        """Returns FlexAttention's block mask of these sequences, created once per window."""
        if window not in self._block_masks:
            from torch.nn.attention.flex_attention import create_block_mask

            owners, size = self.owners, len(self.owners)
            limit = torch.tensor(window or size, device=self.device)  # a tensor: one compiled kernel serves all windows

            def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
                return (query >= key) & (owners[query] == owners[key]) & (query - key < limit)

            self._block_masks[window] = create_block_mask(visible, None, None, size, size, device=str(self.device))
        return self._block_masks[window]
