"""Packed batches: sequences concatenated in one row without padding; no sequence attends to another.

Shapes in this file: T tokens of all sequences, S sequences, N predicted tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actors.modeling.packing import Packing

Tokens = Sequence[int] | NDArray[np.integer[Any]]
Mask = Sequence[int] | NDArray[np.integer[Any]] | NDArray[np.bool_]


@dataclass(frozen=True)
class PackedBatch:
    """S concatenated sequences. `predict` lists the positions whose next token is predicted."""

    input_ids: Tensor  # (T,) int64
    lengths: tuple[int, ...]  # S lengths whose sum is T
    predict: Tensor  # (N,) int64, positions in 0..T-1

    @classmethod
    def of(cls, sequences: Sequence[Tokens], targets: Sequence[Mask] | None = None) -> PackedBatch:
        """Packs token sequences.

        Args:
            sequences: S sequences of token ids.
            targets: `targets[s][t]` is 1 where token t of sequence s is predicted. By default all tokens are. A
                sequence's first token is never predicted, because no token precedes it.

        Raises:
            ValueError: a sequence is empty, or a mask's length differs from its sequence's.
        """
        lengths = tuple(len(sequence) for sequence in sequences)
        if not lengths or min(lengths) == 0:
            raise ValueError(f"cannot pack {len(lengths)} sequences of lengths {lengths[:8]}: none may be empty")
        ids = torch.cat([torch.as_tensor(sequence, dtype=torch.int64) for sequence in sequences])
        if targets is None:
            mask = torch.ones(len(ids), dtype=torch.bool)
        else:
            if tuple(len(mask) for mask in targets) != lengths:
                raise ValueError("a target mask has another length than its sequence")
            mask = torch.cat([torch.as_tensor(mask, dtype=torch.bool) for mask in targets])
        starts = [0, *accumulate(lengths)][:-1]
        mask[starts] = False
        return cls(ids, lengths, mask.nonzero().squeeze(1) - 1)

    @property
    def targets(self) -> Tensor:
        """Ids of the predicted tokens, (N,) int64."""
        return self.input_ids[self.predict + 1]

    @property
    def last_positions(self) -> Tensor:
        """Position of each sequence's last token, (S,) int64."""
        return torch.tensor(list(accumulate(self.lengths)), device=self.input_ids.device) - 1

    @property
    def target_counts(self) -> list[int]:
        """Number of predicted tokens of each sequence: S numbers whose sum is N."""
        ends = torch.tensor(list(accumulate(self.lengths)), device=self.predict.device)
        owner = torch.searchsorted(ends, self.predict, right=True)
        return torch.bincount(owner, minlength=len(self.lengths)).tolist()

    def to(self, device: torch.device | str) -> PackedBatch:
        """Returns the same batch on `device`."""
        return PackedBatch(self.input_ids.to(device), self.lengths, self.predict.to(device))

    @cached_property
    def packing(self) -> Packing:
        """The boundaries of the sequences, for attention."""
        return Packing(self.lengths, self.input_ids.device)

    def model_inputs(self) -> dict[str, Any]:
        """Returns the keyword arguments for a Transformers decoder whose attention implementation is `packed`."""
        return {
            "input_ids": self.input_ids[None],
            "position_ids": self.packing.positions[None],
            "packing": self.packing,
            "use_cache": False,
        }
