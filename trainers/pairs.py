"""A micro-batch of preference pairs and its Bradley-Terry loss: what a rank computes with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from actors.openrlhf import PairWiseLoss
from actors.packed import PackedBatch, Tokens


@dataclass(frozen=True)
class PairBatch(PackedBatch):
    """P pairs as 2P sequences, each chosen one followed by its rejected one."""

    flaws: Tensor  # (P,) int64: the rejected answer's flaw, an index into the stage's names, -1 for one not among them

    @classmethod
    def of_pairs(cls, sequences: Sequence[Tokens], flaws: Sequence[int]) -> PairBatch:
        """Packs chosen and rejected sequences in turn; one flaw a pair."""
        packed = PackedBatch.of(sequences)
        return cls(packed.input_ids, packed.lengths, packed.predict, torch.tensor(flaws))

    def to(self, device: torch.device | str) -> PairBatch:
        moved = super().to(device)
        return replace(self, input_ids=moved.input_ids, predict=moved.predict, flaws=self.flaws.to(device))

    def scores(self, scalars: Tensor) -> Tensor:
        """Scores of the pairs, (P, 2) for chosen and rejected, from the head's scalars after each token, (T,)."""
        return scalars[self.last_positions].view(-1, 2)


def pair_loss(scores: Tensor) -> Tensor:
    """Sum over pairs of -log sigmoid(chosen - rejected), given scores (P, 2); openrlhf's is the mean."""
    return PairWiseLoss()(scores[:, 0], scores[:, 1]) * len(scores)
