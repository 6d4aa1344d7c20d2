"""Losses of policy and critic on packed rows: openrlhf's formulas with per-token weights.

The worker of a role calls its loss with the model's outputs for a micro-batch of N response tokens. Each token has a
weight in the column `weights` (see `add_weights`), so the sum of the loss does not depend on how the batch is split.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from actors.modeling.openrlhf import PolicyLoss, ValueLoss, compute_approx_kl
from actors.roles.learner import TableLoss, TrainBatch
from trainers.config.algorithm import AlgorithmConfig
from trainers.config.rlhf import PPOConfig


@dataclass(frozen=True)
class ClippedPolicyLoss:
    """PPO's clipped surrogate loss (Schulman et al. 2017, eq. 7), with the optional terms that `algorithm` enables.

    Optional terms: dual clip (Ye et al. 2020, eq. 4); the KL to the reference; an entropy bonus; truncated importance
    sampling (TIS) weights of policy over engine, which, together with the surrogate's ratio to the policy before the
    step, form the decoupled objective (Hilton et al. 2022, eq. 3). With `skips_old_logprobs`, the current policy stands
    in for the policy before the step, so the ratio is 1.

    Metrics, each of which is this micro-batch's contribution to the weighted mean over the tokens of the optimizer
    step: `kl`, the k1 estimate of KL(old || new), in nats; `ratio_deviation`, |ratio - 1|; `clip_fraction`; `entropy`,
    in nats; and, if enabled, `kl_loss` and `rollout_correction`, the TIS weight.
    """

    algorithm: AlgorithmConfig
    kl_coef: float
    skips_old_logprobs: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the loss reads."""
        read = {
            "logprobs": not self.skips_old_logprobs,
            "rollout_logprobs": self._truncates,
            "ref_logprobs": self._has_kl,
        }
        return ("weights", "advantages", *(name for name, is_read in read.items() if is_read))

    def __call__(self, outputs: tuple[Tensor, Tensor], batch: TrainBatch) -> tuple[Tensor, dict[str, Tensor]]:
        logprobs, entropy = outputs  # (N,) each
        algorithm, weights = self.algorithm, batch["weights"]
        before = logprobs.detach() if self.skips_old_logprobs else batch["logprobs"]
        surrogate = PolicyLoss(
            algorithm.clip_eps,
            algorithm.clip_eps if algorithm.clip_eps_high is None else algorithm.clip_eps_high,
            algorithm.dual_clip,
            is_correction_level="token" if self._truncates else "off",
            is_correction_mode="clip",
            is_correction_threshold=[0.0, algorithm.rollout_correction_cap],
        )
        loss, *_ = surrogate(
            logprobs,
            before,
            batch["advantages"],
            weights,
            rollout_log_probs=batch["rollout_logprobs"] if self._truncates else None,
            dp_size=batch.world_size,
            batch_num_tokens=1.0,
        )
        metrics = self._metrics(logprobs.detach(), before, batch) | {"entropy": (entropy.detach() * weights).sum()}
        if self._has_kl:
            kl = (
                compute_approx_kl(logprobs, batch["ref_logprobs"], kl_estimator=algorithm.kl_estimator) * weights
            ).sum()
            loss = loss + self.kl_coef * kl * batch.world_size
            metrics["kl_loss"] = kl.detach()
        if algorithm.entropy_coef > 0:
            loss = loss - algorithm.entropy_coef * (entropy * weights).sum() * batch.world_size
        return loss, metrics

    def _metrics(self, logprobs: Tensor, before: Tensor, batch: TrainBatch) -> dict[str, Tensor]:
        algorithm, weights = self.algorithm, batch["weights"]
        ratio = (logprobs - before).exp()
        high = algorithm.clip_eps if algorithm.clip_eps_high is None else algorithm.clip_eps_high
        clipped = ratio.clamp(1.0 - algorithm.clip_eps, 1.0 + high)
        worse = (clipped * batch["advantages"]) < (ratio * batch["advantages"])
        metrics = {
            "kl": ((before - logprobs) * weights).sum(),
            "ratio_deviation": ((ratio - 1.0).abs() * weights).sum(),
            "clip_fraction": (worse * weights).sum(),
        }
        if self._truncates:
            weight = (before - batch["rollout_logprobs"]).exp().clamp(max=algorithm.rollout_correction_cap)
            metrics["rollout_correction"] = (weight * weights).sum()
        return metrics

    @property
    def _truncates(self) -> bool:
        return self.algorithm.rollout_correction == "truncated"

    @property
    def _has_kl(self) -> bool:
        return self.algorithm.kl_in == "loss" and self.kl_coef > 0


@dataclass(frozen=True)
class ClippedValueLoss:
    """Clipped value loss: half of the larger of the clipped and the unclipped squared error to the returns."""

    clip_eps: float

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the loss reads."""
        return ("weights", "values", "returns")

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


def losses(config: PPOConfig, step: int, kl_coef: float) -> dict[str, TableLoss]:
    """Returns the loss of each role that is updated in `step`, by role."""
    chosen: dict[str, TableLoss] = {}
    if step >= config.critic_warmup_steps:
        chosen["policy"] = ClippedPolicyLoss(config.algorithm, kl_coef, config.skips_old_logprobs)
    if config.algorithm.has_critic:
        chosen["critic"] = ClippedValueLoss(config.algorithm.value_clip_eps)
    return chosen
