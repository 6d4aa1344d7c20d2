"""Settings of the stages that generate: PPO and its variants, rejection sampling. Does not import torch."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from actors.config import (
    FrozenRoleConfig,
    OverlappedRolloutConfig,
    PublishConfig,
    RewardFunctionConfig,
    RolloutConfig,
    TrainedRoleConfig,
)
from actors.groups.colocation import Colocate, PlacementGroupSpec, placement_group_specs, require_memory_share
from configs.base import Section
from trainers.config.supervised import EvaluationConfig, StageConfig


class PromptData(Section):
    """Prompts for which the policy generates responses."""

    train: tuple[str, ...] = Field(min_length=1, description="tables with a `prompt` column of messages")
    max_tokens: int = Field(1024, ge=1, description="longest prompt, in tokens; a longer one is refused by name")


def require_room(prompts: PromptData, rollout: RolloutConfig, field: str, tokens: int) -> None:
    """Raises ValueError if prompt and response together may exceed `tokens`, the value of the setting `field`."""
    longest = prompts.max_tokens + rollout.max_new_tokens
    if longest > tokens:
        raise ValueError(
            f"prompts.max_tokens {prompts.max_tokens} + rollout.max_new_tokens {rollout.max_new_tokens} = {longest} "
            f"exceeds {field} {tokens}; lower one of the first two or raise the last"
        )


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
        "ppo", description="where advantages come from: ppo has a critic, the others compare responses"
    )
    gamma: float = Field(1.0, gt=0, le=1, description="discount of a later reward, a token")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="lambda of generalized advantage estimation (ppo)")
    whiten_advantages: bool = Field(
        True, description="advantages of a step get mean 0 and variance 1 over its tokens; not in grpo, dr_grpo, rloo"
    )
    clip_eps: float = Field(0.2, gt=0, description="the policy's probability ratio is clipped to 1 +- this")
    clip_eps_high: float | None = Field(None, gt=0, description="upwards to 1 + this, where it is another")
    dual_clip: float | None = Field(None, gt=1, description="bound of a negative advantage's loss, in advantages")
    value_clip_eps: float = Field(0.5, gt=0, description="new values are clipped to the old ones +- this (ppo)")
    entropy_coef: float = Field(0.0, ge=0, description="weight of the entropy, which is then rewarded")
    loss_aggregation: Literal["token_mean", "sequence_mean", "constant"] = Field(
        "token_mean",
        description="what a minibatch's loss is a mean over: tokens; responses, of which each is the mean of its tokens "
        "(grpo); or responses, each the sum of its tokens over max_new_tokens (dr_grpo)",
    )
    kl_in: Literal["reward", "loss"] = Field(
        "reward", description="whether the KL to the reference is taken from rewards or added to the loss (grpo's)"
    )
    kl_coef: float = Field(0.05, ge=0, description="weight of the KL to the reference; 0 starts no reference")
    kl_estimator: Literal["k1", "k2", "k3"] = Field("k1", description="estimator of that KL; grpo's is k3")
    kl_target: float | None = Field(None, gt=0, description="KL, nats a response, to which kl_coef is steered")
    kl_horizon: int = Field(10_000, ge=1, description="responses in which steering changes kl_coef by about a fifth")
    reward_clip: float = Field(10.0, gt=0, description="rewards are clipped to +- this before anything else")
    normalize_rewards: bool = Field(False, description="divide rewards by their running standard deviation")
    length_penalty: float = Field(0.0, ge=0, description="taken from a response's reward, a token")
    overlong_buffer: int = Field(
        0, ge=0, description="last tokens below max_new_tokens that cost up to overlong_penalty"
    )
    overlong_penalty: float = Field(1.0, ge=0, description="taken from a response of max_new_tokens")
    drop_truncated: bool = Field(
        False, description="responses that were cut off are not trained on; a step of no others changes no weights"
    )
    dynamic_sampling: int = Field(
        0, ge=0, description="further batches a step may ask for, in place of prompts whose responses all score alike"
    )
    rollout_correction: Literal["none", "truncated"] = Field(
        "none", description="weight tokens by policy over engine probability, truncated; for rollout.ahead > 0"
    )
    rollout_correction_cap: float = Field(2.0, gt=0, description="where that weight is truncated")
    epochs: int = Field(1, ge=1, description="passes over a step's samples")
    minibatches: int = Field(1, ge=1, description="optimizer steps a pass")

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


class StopConfig(Section):
    """Limits that indicate a collapse, which stops the run with an error. Checkpoints are kept."""

    entropy_below: float = Field(0.0, ge=0, description="mean entropy of the policy's tokens, nats")
    kl_above: float | None = Field(None, gt=0, description="KL to the reference, nats a response")


class RewardedConfig(StageConfig):
    """The sources of reward of a stage that generates: the reward model, reward functions and endpoints, or both."""

    reward: FrozenRoleConfig | None = Field(None, description="the reward model")
    reward_weight: float = Field(1.0, description="weight of the reward model's score")
    reward_function: RewardFunctionConfig = RewardFunctionConfig()

    @property
    def reward_roles(self) -> dict[str, FrozenRoleConfig | RewardFunctionConfig | None]:
        """The settings of the roles that compute rewards, by role; None if a role is not used."""
        return {
            "reward": self.reward,
            "reward_function": self.reward_function if self.reward_function.sources else None,
        }

    @property
    def reward_weights(self) -> dict[str, float]:
        """The weight of every source of reward, by source."""
        model = {"model": self.reward_weight} if self.reward is not None else {}
        return {**model, **self.reward_function.sources}

    @model_validator(mode="after")
    def _something_rewards(self) -> Self:
        if not self.reward_weights:
            raise ValueError(
                "nothing rewards responses: give reward.model, reward_function.functions or reward_function.endpoints"
            )
        return self


class PPOConfig(RewardedConfig):
    """RLHF: trains the policy on rewards; vLLM engines generate. Only roles that the algorithm needs are started."""

    recipe_key: ClassVar[str] = "ppo"

    prompts: PromptData
    steps: int = Field(ge=1, description="PPO steps: generate, score, learn, publish")
    prompts_per_step: int = Field(32, ge=1, description="different prompts answered in one step")
    samples_per_prompt: int = Field(1, ge=1, description="responses to each prompt")
    algorithm: AlgorithmConfig = AlgorithmConfig()
    policy: TrainedRoleConfig
    critic: TrainedRoleConfig | None = Field(None, description="learns values; for algorithm.name ppo")
    reference: FrozenRoleConfig | None = Field(
        None, description="what the policy is kept close to, by algorithm.kl_coef"
    )
    rollout: OverlappedRolloutConfig = OverlappedRolloutConfig()
    publish: PublishConfig = PublishConfig()
    colocate: Colocate = Field(
        "none",
        description="roles that share a placement group and its CPUs and GPUs: none, all, or groups such as "
        "[[policy, critic], [reference, reward]]",
    )
    samples_every: int = Field(10, ge=1, description="steps between those whose texts are written to samples/")
    evaluation: EvaluationConfig | None = Field(None, description="evaluate the policy on tasks while it learns")
    checkpoint_every: int = Field(10, ge=1, description="steps between checkpoints of policy and critic")
    keep_checkpoints: int = Field(2, ge=1, description="checkpoints that are kept, the newest")
    critic_warmup_steps: int = Field(0, ge=0, description="first steps in which only the critic learns")
    stop: StopConfig = StopConfig()
    max_failures: int = Field(
        3, ge=0, description="how often lost processes of a role are replaced within failure_window_s, or one step"
    )
    failure_window_s: float = Field(600.0, gt=0, description="seconds after which a loss no longer counts")

    @property
    def roles(self) -> dict[str, Any]:
        """The settings of every role that is started, by role."""
        algorithm = self.algorithm
        wanted = {
            "policy": self.policy,
            "critic": self.critic if algorithm.has_critic else None,
            "reference": self.reference if algorithm.kl_coef > 0 else None,
            **self.reward_roles,
            "rollout": self.rollout,
        }
        return {role: settings for role, settings in wanted.items() if settings is not None}

    @property
    def placement_groups(self) -> list[PlacementGroupSpec]:
        """The placement groups of the roles."""
        return placement_group_specs(self.colocate, {role: settings.placement for role, settings in self.roles.items()})

    @property
    def skips_old_logprobs(self) -> bool:
        """Whether the separate pass for old log-probabilities is skipped.

        With one optimizer step per PPO step, the loss itself computes the same values; it must be their only user.
        """
        algorithm = self.algorithm
        once = algorithm.epochs * algorithm.minibatches == 1
        kl_in_reward = algorithm.kl_in == "reward" and algorithm.kl_coef > 0
        return once and not kl_in_reward and algorithm.rollout_correction == "none"

    @property
    def rows_per_step(self) -> int:
        """Responses of one step."""
        return self.prompts_per_step * self.samples_per_prompt

    @property
    def updates(self) -> int:
        """Optimizer steps of the whole run."""
        return self.steps * self.algorithm.epochs * self.algorithm.minibatches

    @model_validator(mode="after")
    def _batch_divides(self) -> PPOConfig:
        product = f"prompts_per_step {self.prompts_per_step} x samples_per_prompt {self.samples_per_prompt}"
        if self.rows_per_step % self.algorithm.minibatches:
            raise ValueError(
                f"{product} = {self.rows_per_step} samples are not divisible by algorithm.minibatches "
                f"{self.algorithm.minibatches}; make it a divisor"
            )
        for role in ("policy", "critic"):
            if role not in self.roles:
                continue
            ranks = self.roles[role].placement.ranks
            if self.rows_per_step // self.algorithm.minibatches % ranks:
                raise ValueError(
                    f"a minibatch of {self.rows_per_step // self.algorithm.minibatches} samples ({product}, "
                    f"algorithm.minibatches {self.algorithm.minibatches}) is not divisible by {role}.placement.ranks "
                    f"{ranks}; make it a multiple"
                )
        return self

    @model_validator(mode="after")
    def _prompt_and_answer_fit(self) -> PPOConfig:
        require_room(self.prompts, self.rollout, "rollout.engine.max_model_len", self.rollout.engine.max_model_len)
        return self

    @model_validator(mode="after")
    def _algorithm_has_its_roles(self) -> PPOConfig:
        algorithm = self.algorithm
        if algorithm.has_critic and self.critic is None:
            raise ValueError(
                "critic is missing, which algorithm.name ppo needs: give critic.model, or take another name"
            )
        if self.critic_warmup_steps and not algorithm.has_critic:
            raise ValueError(f"critic_warmup_steps: algorithm.name {algorithm.name} has no critic; set it to 0")
        if algorithm.kl_coef > 0 and self.reference is None:
            raise ValueError(
                f"reference is missing, which algorithm.kl_coef {algorithm.kl_coef:g} needs: give reference.model, or 0"
            )
        if algorithm.kl_target is not None and algorithm.kl_coef == 0:
            raise ValueError("algorithm.kl_target steers algorithm.kl_coef, which is 0: start it above")
        if algorithm.compares_responses and self.samples_per_prompt < 2:
            raise ValueError(
                f"algorithm.name {algorithm.name} compares responses to one prompt: raise samples_per_prompt above 1"
            )
        if algorithm.overlong_buffer > self.rollout.max_new_tokens:
            raise ValueError(
                f"algorithm.overlong_buffer {algorithm.overlong_buffer} exceeds rollout.max_new_tokens "
                f"{self.rollout.max_new_tokens}: lower it"
            )
        return self

    @model_validator(mode="after")
    def _what_works_ahead(self) -> PPOConfig:
        algorithm = self.algorithm
        if algorithm.dynamic_sampling and self.samples_per_prompt < 2:
            raise ValueError(
                "algorithm.dynamic_sampling looks at a prompt's responses: raise samples_per_prompt above 1, or 0"
            )
        if algorithm.dynamic_sampling and self.rollout.ahead:
            raise ValueError(
                "algorithm.dynamic_sampling waits for scores, rollout.ahead does not: set one of them to 0"
            )
        if self.rollout.in_flight != "none" and not (
            self.rollout.ahead and algorithm.rollout_correction == "truncated"
        ):
            raise ValueError(
                f"rollout.in_flight {self.rollout.in_flight} gives responses that several weights made: set rollout.ahead to "
                "1 or more and algorithm.rollout_correction to truncated, or in_flight to none"
            )
        return self

    @model_validator(mode="after")
    def _transport_has_its_hardware(self) -> PPOConfig:
        if self.publish.transport == "vllm_nccl" and not (
            self.policy.placement.gpus_per_rank >= 1 and self.rollout.placement.gpus_per_rank >= 1
        ):
            raise ValueError(
                "publish.transport vllm_nccl needs GPUs, one a rank, which NCCL does not divide: set "
                "policy.placement.gpus_per_rank and rollout.placement.gpus_per_rank to 1, or use object_store"
            )
        return self

    @model_validator(mode="after")
    def _roles_fit_together(self) -> PPOConfig:
        for spec in self.placement_groups:
            require_memory_share(spec, self.rollout)
            if self.publish.transport == "vllm_nccl" and {"policy", "rollout"} <= set(spec.roles):
                raise ValueError(
                    "colocate puts policy and rollout on one GPU, where NCCL cannot bring the one's weights to the "
                    "other: set publish.transport to object_store, or keep the two in different groups"
                )
        return self
