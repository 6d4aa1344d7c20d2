"""Micro-batches of preference pairs and their losses, Bradley-Terry's and DPO's: what a rank computes with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from actors.modeling.openrlhf import DPOLoss, PairWiseLoss
from actors.modeling.packed import PackedBatch, Tokens


@dataclass(frozen=True)
class PairBatch(PackedBatch):
    """P pairs as 2P sequences, each chosen one followed by its rejected one."""

    margins: Tensor  # (P,) fp32: by how much the chosen score should exceed the rejected one

    @classmethod
    def of_pairs(cls, sequences: Sequence[Tokens], margins: Sequence[float]) -> PairBatch:
        """Packs chosen and rejected sequences in turn; one margin a pair."""
        packed = PackedBatch.of(sequences)
        return cls(packed.input_ids, packed.lengths, packed.predict, torch.tensor(margins, dtype=torch.float32))

    def to(self, device: torch.device | str) -> PairBatch:
        """The same batch on `device`."""
        moved = super().to(device)
        return replace(self, input_ids=moved.input_ids, predict=moved.predict, margins=self.margins.to(device))

    def scores(self, scalars: Tensor) -> Tensor:
        """Scores of the pairs, (P, 2) for chosen and rejected, from the head's scalars after each token, (T,)."""
        return scalars[self.last_positions].view(-1, 2)


def pair_loss(scores: Tensor, margins: Tensor, label_smoothing: float) -> Tensor:
    """Sum over pairs of Bradley-Terry's loss, given scores (P, 2) and margins (P,); openrlhf's is the mean.

    A pair's is -log sigmoid(d) with d = chosen - rejected - margin (Touvron et al. 2023, Llama 2, eq. 2). Label smoothing e
    is the cross-entropy of sigmoid(d) with a label that is right with probability 1 - e:
    -(1 - e) log sigmoid(d) - e log sigmoid(-d) (Szegedy et al. 2016, section 7, for two classes).
    """
    chosen, rejected = scores.unbind(1)
    loss = (1.0 - label_smoothing) * PairWiseLoss()(chosen, rejected, margins)
    if label_smoothing:
        loss = loss + label_smoothing * PairWiseLoss()(rejected, chosen, -margins)
    return loss * len(scores)


@dataclass(frozen=True)
class AnswerBatch(PackedBatch):
    """P pairs as 2P sequences, each chosen one followed by its rejected one; the answers' tokens are predicted."""

    reference: Tensor  # (P, 2) fp32: the reference's log-probabilities of the chosen and the rejected answer

    @classmethod
    def of_pairs(cls, sequences: Sequence[Tokens], answers: Sequence[int], reference: Tensor) -> AnswerBatch:
        """Packs chosen and rejected sequences in turn; a sequence's last `answers` tokens are its answer."""
        targets = [
            np.arange(len(sequence)) >= len(sequence) - answer
            for sequence, answer in zip(sequences, answers, strict=True)
        ]
        packed = PackedBatch.of(sequences, targets)
        return cls(packed.input_ids, packed.lengths, packed.predict, reference)

    def to(self, device: torch.device | str) -> AnswerBatch:
        """The same batch on `device`."""
        moved = super().to(device)
        return replace(self, input_ids=moved.input_ids, predict=moved.predict, reference=self.reference.to(device))

    def answer_logprobs(self, logprobs: Tensor) -> Tensor:
        """Sums over each answer's tokens, (P, 2) for chosen and rejected, of log-probabilities (N,)."""
        return torch.stack([answer.sum() for answer in logprobs.split(self.target_counts)]).view(-1, 2)


def dpo_loss(logprobs: Tensor, reference: Tensor, beta: float, label_smoothing: float) -> Tensor:
    """Sum over pairs of DPO's loss, given the answers' log-probabilities (P, 2) under the model and the reference.

    Rafailov et al. 2023, eq. 7; with label smoothing Mitchell 2023, eq. 3. openrlhf's is the mean.
    """
    mean, _, _ = DPOLoss(beta, label_smoothing)(*logprobs.unbind(1), *reference.unbind(1))
    return mean * len(logprobs)
