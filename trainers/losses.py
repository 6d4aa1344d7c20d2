"""The losses of PPO on packed rows: openrlhf's arithmetic, weighted so that no cut of the batch changes the sum.

Each is called by a role's worker with what its model returned for a micro-batch of N response tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from actors.learner import TrainBatch
from actors.openrlhf import PolicyLoss, ValueLoss


@dataclass(frozen=True)
class ClippedPolicyLoss:
    """PPO's clipped surrogate (Schulman et al. 2017, eq. 7), mean over the step's tokens.

    Figures, each a share of the step's mean: `kl` k1 estimate of KL(old || new), `ratio_deviation` |ratio - 1|,
    `clip_fraction`, `entropy` in nats.
    """

    clip_eps: float

    def __call__(self, outputs: tuple[Tensor, Tensor], batch: TrainBatch) -> tuple[Tensor, dict[str, Tensor]]:
        logprobs, entropy = outputs  # (N,) each
        everywhere = torch.ones_like(logprobs)
        loss, clip_fraction, policy_kl, *_ = PolicyLoss(self.clip_eps, self.clip_eps)(
            logprobs,
            batch["logprobs"],
            batch["advantages"],
            everywhere,
            dp_size=batch.world_size,
            batch_num_tokens=batch.total_tokens,
        )
        share = len(logprobs) / batch.total_tokens
        ratio = (logprobs.detach() - batch["logprobs"]).exp()
        return loss, {
            "kl": policy_kl * share,
            "ratio_deviation": (ratio - 1.0).abs().mean() * share,
            "clip_fraction": clip_fraction * share,
            "entropy": entropy.mean() * share,
        }


@dataclass(frozen=True)
class ClippedValueLoss:
    """Half the squared error to the returns, the worse of the clipped and the free value; mean over the step's tokens."""

    clip_eps: float

    def __call__(self, values: Tensor, batch: TrainBatch) -> tuple[Tensor, dict[str, Tensor]]:
        loss = ValueLoss(self.clip_eps)(
            values,
            batch["values"],
            batch["returns"],
            torch.ones_like(values),
            dp_size=batch.world_size,
            batch_num_tokens=batch.total_tokens,
        )
        return loss, {}
