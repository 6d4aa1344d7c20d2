"""Settings of an RLHF algorithm. Does not import torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from configs.base import Section

# The defaults that depend on the algorithm's name; trainers/rlhf/algorithms.py cites the papers.
_PRESETS: dict[str, dict[str, Any]] = {
    "ppo": {},
    "grpo": {"kl_in": "loss", "kl_estimator": "k3", "whiten_advantages": False, "loss_aggregation": "sequence_mean"},
    "dr_grpo": {"kl_in": "loss", "kl_estimator": "k3", "whiten_advantages": False, "loss_aggregation": "constant"},
    "rloo": {"whiten_advantages": False},
    "reinforce_pp": {},
    "reinforce_pp_baseline": {"kl_in": "loss", "kl_estimator": "k2"},
}


class AlgorithmConfig(Section):
    """How advantages are computed from rewards, and the loss from advantages. Defaults depend on `name`."""

    name: Literal["ppo", "grpo", "dr_grpo", "rloo", "reinforce_pp", "reinforce_pp_baseline"] = Field(
        "ppo",
        description="algorithm for advantages: ppo trains a critic; the others compare responses with those of the "
        "same prompt or batch",
    )
    gamma: float = Field(1.0, gt=0, le=1, description="discount factor per token")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="lambda of generalized advantage estimation (ppo)")
    whiten_advantages: bool = Field(
        True,
        description="normalize a step's advantages over its tokens to mean 0 and variance 1; default false for "
        "grpo, dr_grpo, and rloo",
    )
    clip_eps: float = Field(
        0.2, gt=0, description="clip range of the policy's probability ratio: 1 - clip_eps to 1 + clip_eps"
    )
    clip_eps_high: float | None = Field(
        None, gt=0, description="upper clip range, 1 + clip_eps_high; null: the same as clip_eps"
    )
    dual_clip: float | None = Field(
        None,
        gt=1,
        description="dual-clip PPO: the loss of a token with negative advantage is at most dual_clip times the "
        "advantage's magnitude",
    )
    value_clip_eps: float = Field(
        0.5, gt=0, description="clip range of the critic's values around the old values (ppo)"
    )
    entropy_coef: float = Field(0.0, ge=0, description="weight of the entropy bonus")
    loss_aggregation: Literal["token_mean", "sequence_mean", "constant"] = Field(
        "token_mean",
        description="average of a minibatch's loss. token_mean: over tokens; sequence_mean: over responses, each "
        "the mean of its tokens (grpo); constant: over responses, each the sum of its tokens divided by "
        "max_new_tokens (dr_grpo)",
    )
    kl_in: Literal["reward", "loss"] = Field(
        "reward",
        description="where the KL to the reference is applied: subtracted from rewards, or added to the loss "
        "(default for grpo, dr_grpo, and reinforce_pp_baseline)",
    )
    kl_coef: float = Field(0.05, ge=0, description="weight of the KL to the reference; with 0 no reference is started")
    kl_estimator: Literal["k1", "k2", "k3"] = Field(
        "k1",
        description="estimator of the KL to the reference; default k3 for grpo and dr_grpo, k2 for "
        "reinforce_pp_baseline",
    )
    kl_target: float | None = Field(
        None, gt=0, description="adaptive KL controller: KL to reach, in nats per response; null: kl_coef is constant"
    )
    kl_horizon: int = Field(
        10_000,
        ge=1,
        description="horizon of the adaptive KL controller, in responses: kl_coef changes by at most about 20% over "
        "this many",
    )
    reward_clip: float = Field(10.0, gt=0, description="rewards are clipped to +- this before all other processing")
    normalize_rewards: bool = Field(False, description="divide rewards by their running standard deviation")
    length_penalty: float = Field(0.0, ge=0, description="penalty per token of a response, subtracted from its reward")
    overlong_buffer: int = Field(
        0,
        ge=0,
        description="soft overlong penalty: it rises linearly from 0 to overlong_penalty over the last "
        "overlong_buffer tokens before max_new_tokens; 0 turns it off",
    )
    overlong_penalty: float = Field(
        1.0, ge=0, description="penalty of a response of max_new_tokens, subtracted from its reward"
    )
    drop_truncated: bool = Field(
        False,
        description="exclude truncated responses from training; a step with only truncated responses changes no "
        "weights",
    )
    dynamic_sampling: int = Field(
        0,
        ge=0,
        description="extra batches that a step may generate to replace prompts whose responses all have the same "
        "score; 0 turns it off",
    )
    rollout_correction: Literal["none", "truncated"] = Field(
        "none",
        description="truncated importance sampling (TIS): weight a token by its policy probability over its engine "
        "probability, truncated; for rollout.ahead > 0",
    )
    rollout_correction_cap: float = Field(
        2.0, gt=0, description="upper limit of the truncated importance sampling weight"
    )
    epochs: int = Field(1, ge=1, description="passes over a step's responses")
    minibatches: int = Field(1, ge=1, description="optimizer steps per pass")

    @property
    def has_critic(self) -> bool:
        """Whether the algorithm trains a critic; the others compare a response with its group or with the batch."""
        return self.name == "ppo"

    @property
    def compares_responses(self) -> bool:
        """Whether advantages compare several responses to the same prompt."""
        return self.name in ("grpo", "dr_grpo", "rloo", "reinforce_pp_baseline")

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {**_PRESETS.get(given.get("name", "ppo"), {}), **given}
