"""The losses of policy and critic on packed rows: openrlhf's arithmetic, weighted so that no cut of the batch changes the sum.

Each is called by a role's worker with what its model returned for a micro-batch of N response tokens. A token's share in the
loss is its `weights`, which the driver made (see `add_weights`).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from actors.modeling.openrlhf import PolicyLoss, ValueLoss, compute_approx_kl
from actors.roles.learner import TrainBatch
from actors.zero.model import Loss
from trainers.config.rlhf import AlgorithmConfig, PPOConfig


@dataclass(frozen=True)
class ClippedPolicyLoss:
    """PPO's clipped surrogate (Schulman et al. 2017, eq. 7), with the additions that `algorithm` asks for.

    Dual clip (Ye et al. 2020, eq. 4); the KL to the reference and minus the entropy, each with its weight; truncated
    importance weights of policy over engine, which with the surrogate's ratio to the policy before the step make the
    decoupled objective (Hilton et al. 2022, eq. 3). Without a column `logprobs` the policy before the step is this one.

    Figures, each a share of the step's mean: `kl` k1 estimate of KL(old || new), `ratio_deviation` |ratio - 1|,
    `clip_fraction`, `entropy` in nats, and `kl_loss`, `importance` (mean weight) where there are such.
    """

    algorithm: AlgorithmConfig
    kl_coef: float

    def __call__(self, outputs: tuple[Tensor, Tensor], batch: TrainBatch) -> tuple[Tensor, dict[str, Tensor]]:
        logprobs, entropy = outputs  # (N,) each
        algorithm, weights = self.algorithm, batch["weights"]
        before = batch["logprobs"] if "logprobs" in batch else logprobs.detach()
        truncated = algorithm.importance == "truncated"
        surrogate = PolicyLoss(
            algorithm.clip_eps,
            algorithm.clip_eps if algorithm.clip_eps_high is None else algorithm.clip_eps_high,
            algorithm.dual_clip,
            is_correction_level="token" if truncated else "off",
            is_correction_mode="clip",
            is_correction_threshold=[0.0, algorithm.importance_cap],
        )
        loss, *_ = surrogate(
            logprobs,
            before,
            batch["advantages"],
            weights,
            rollout_log_probs=batch["rollout_logprobs"] if truncated else None,
            dp_size=batch.world_size,
            batch_num_tokens=1.0,
        )
        figures = self._figures(logprobs.detach(), before, batch) | {"entropy": (entropy.detach() * weights).sum()}
        if algorithm.kl_in == "loss" and self.kl_coef > 0:
            kl = (
                compute_approx_kl(logprobs, batch["ref_logprobs"], kl_estimator=algorithm.kl_estimator) * weights
            ).sum()
            loss = loss + self.kl_coef * kl * batch.world_size
            figures["kl_loss"] = kl.detach()
        if algorithm.entropy_coef > 0:
            loss = loss - algorithm.entropy_coef * (entropy * weights).sum() * batch.world_size
        return loss, figures

    def _figures(self, logprobs: Tensor, before: Tensor, batch: TrainBatch) -> dict[str, Tensor]:
        algorithm, weights = self.algorithm, batch["weights"]
        ratio = (logprobs - before).exp()
        high = algorithm.clip_eps if algorithm.clip_eps_high is None else algorithm.clip_eps_high
        clipped = ratio.clamp(1.0 - algorithm.clip_eps, 1.0 + high)
        worse = (clipped * batch["advantages"]) < (ratio * batch["advantages"])
        figures = {
            "kl": ((before - logprobs) * weights).sum(),
            "ratio_deviation": ((ratio - 1.0).abs() * weights).sum(),
            "clip_fraction": (worse * weights).sum(),
        }
        if algorithm.importance == "truncated":
            weight = (before - batch["rollout_logprobs"]).exp().clamp(max=algorithm.importance_cap)
            figures["importance"] = (weight * weights).sum()
        return figures


@dataclass(frozen=True)
class ClippedValueLoss:
    """Half the squared error to the returns, the worse of the clipped and the free value."""

    clip_eps: float

    def __call__(self, values: Tensor, batch: TrainBatch) -> tuple[Tensor, dict[str, Tensor]]:
        loss = ValueLoss(self.clip_eps)(
            values,
            batch["values"],
            batch["returns"],
            batch["weights"],
            dp_size=batch.world_size,
            batch_num_tokens=1.0,
        )
        return loss, {}


def losses(config: PPOConfig, step: int, kl_coef: float) -> dict[str, Loss[TrainBatch]]:
    """The roles that are updated in `step`, each with its loss."""
    chosen: dict[str, Loss[TrainBatch]] = {}
    if step >= config.critic_warmup_steps:
        chosen["policy"] = ClippedPolicyLoss(config.algorithm, kl_coef)
    if config.algorithm.has_critic:
        chosen["critic"] = ClippedValueLoss(config.algorithm.value_clip_eps)
    return chosen
