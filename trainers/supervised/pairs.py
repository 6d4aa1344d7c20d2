"""Micro-batches of preference pairs, and the Bradley-Terry and DPO losses.

Shapes: P pairs, T tokens of all sequences, N predicted tokens.
"""

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

    margins: Tensor  # (P,) fp32: margin by which the chosen score should exceed the rejected one

    @classmethod
    def of_pairs(cls, sequences: Sequence[Tokens], margins: Sequence[float]) -> PairBatch:
        """Packs the alternating chosen and rejected `sequences`, with one margin per pair."""
        packed = PackedBatch.of(sequences)
        return cls(packed.input_ids, packed.lengths, packed.predict, torch.tensor(margins, dtype=torch.float32))

    def to(self, device: torch.device | str) -> PairBatch:
        """Returns the same batch on `device`."""
        moved = super().to(device)
        return replace(self, input_ids=moved.input_ids, predict=moved.predict, margins=self.margins.to(device))

    def scores(self, scalars: Tensor) -> Tensor:
        """Returns the pairs' scores, (P, 2) for chosen and rejected, from the head's outputs at all tokens, (T,)."""
        return scalars[self.last_positions].view(-1, 2)


def pair_loss(scores: Tensor, margins: Tensor, label_smoothing: float) -> Tensor:
    """Returns the sum over pairs of the Bradley-Terry loss, a scalar (openrlhf returns the mean).

    The loss of a pair is -log sigmoid(d) with d = chosen - rejected - margin (Touvron et al. 2023, Llama 2, eq. 2).
    With label smoothing e it is the cross-entropy of sigmoid(d) with a label that is correct with probability 1 - e:
    -(1 - e) log sigmoid(d) - e log sigmoid(-d) (Szegedy et al. 2016, section 7, for two classes).

    Args:
        scores: scores of the responses, (P, 2) for chosen and rejected.
        margins: margins by which the chosen scores should exceed the rejected ones, (P,).
        label_smoothing: assumed probability e that a label is wrong.
    """
    chosen, rejected = scores.unbind(1)
    loss = (1.0 - label_smoothing) * PairWiseLoss()(chosen, rejected, margins)
    if label_smoothing:
        loss = loss + label_smoothing * PairWiseLoss()(rejected, chosen, -margins)
    return loss * len(scores)


@dataclass(frozen=True)
class ResponseBatch(PackedBatch):
    """P pairs as 2P sequences, each chosen one followed by its rejected one; the response tokens are predicted."""

    reference: Tensor  # (P, 2) fp32: the reference's log-probabilities of the chosen and the rejected response

    @classmethod
    def of_pairs(cls, sequences: Sequence[Tokens], responses: Sequence[int], reference: Tensor) -> ResponseBatch:
        """Packs the alternating chosen and rejected `sequences`.

        Args:
            sequences: 2P token sequences, each a prompt followed by its response.
            responses: the number of response tokens of each sequence.
            reference: the reference model's log-probabilities of the responses, (P, 2).
        """
        targets = [
            np.arange(len(sequence)) >= len(sequence) - response
            for sequence, response in zip(sequences, responses, strict=True)
        ]
        packed = PackedBatch.of(sequences, targets)
        return cls(packed.input_ids, packed.lengths, packed.predict, reference)

    def to(self, device: torch.device | str) -> ResponseBatch:
        """Returns the same batch on `device`."""
        moved = super().to(device)
        return replace(self, input_ids=moved.input_ids, predict=moved.predict, reference=self.reference.to(device))

    def response_logprobs(self, logprobs: Tensor) -> Tensor:
        """Returns the responses' log-probabilities, (P, 2) for chosen and rejected: sums of `logprobs`, (N,)."""
        return torch.stack([response.sum() for response in logprobs.split(self.target_counts)]).view(-1, 2)


def dpo_loss(logprobs: Tensor, reference: Tensor, beta: float, label_smoothing: float) -> Tensor:
    """Returns the sum over pairs of the DPO loss, a scalar (openrlhf returns the mean).

    The loss is that of Rafailov et al. 2023, eq. 7, or, with label smoothing, that of Mitchell 2023, eq. 3.

    Args:
        logprobs: log-probabilities of the responses under the model, in nats, (P, 2) for chosen and rejected.
        reference: the same under the reference model.
        beta: strength of the implicit KL penalty.
        label_smoothing: assumed probability that a label is wrong.
    """
    mean, _, _ = DPOLoss(beta, label_smoothing)(*logprobs.unbind(1), *reference.unbind(1))
    return mean * len(logprobs)
