"""Settings of the stages that generate: PPO and its variants, rejection sampling. Does not import torch."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from actors.config import (
    FrozenRoleConfig,
    OverlappedRolloutConfig,
    PublishConfig,
    RewardFunctionConfig,
    RolloutConfig,
    SleepLevel,
    TrainedRoleConfig,
)
from actors.groups.colocation import Colocate, PlacementGroupSpec, placement_group_specs, require_memory_share
from configs.base import Section
from trainers.config.algorithm import AlgorithmConfig
from trainers.config.supervised import EvaluationConfig, StageConfig


class PromptData(Section):
    """Prompts for which the policy generates responses."""

    train: tuple[str, ...] = Field(min_length=1, description="tables with a `prompt` column of messages")
    max_tokens: int = Field(1024, ge=1, description="maximum prompt length in tokens; a longer prompt is an error")


def require_room(prompts: PromptData, rollout: RolloutConfig, field: str, tokens: int) -> None:
    """Raises ValueError if prompt and response together may exceed `tokens`, the value of the setting `field`."""
    longest = prompts.max_tokens + rollout.max_new_tokens
    if longest > tokens:
        raise ValueError(
            f"prompts.max_tokens {prompts.max_tokens} + rollout.max_new_tokens {rollout.max_new_tokens} = {longest} "
            f"exceeds {field} {tokens}; lower one of the first two or raise the last"
        )


class StopConfig(Section):
    """Limits that indicate a collapse, which stops the run with an error. Checkpoints are kept."""

    entropy_below: float = Field(0.0, ge=0, description="lowest allowed mean entropy of the policy, in nats per token")
    kl_above: float | None = Field(
        None, gt=0, description="highest allowed KL to the reference, in nats per response; null: no limit"
    )


class RewardedConfig(StageConfig):
    """The sources of reward of a stage that generates: the reward model, reward functions and endpoints, or both."""

    reward: FrozenRoleConfig | None = Field(None, description="the reward model")
    reward_weight: float = Field(1.0, description="weight of the reward model's score in the sum of all sources")
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
                "no source of reward is set: set reward.model, reward_function.functions, or reward_function.endpoints"
            )
        return self


class PPOConfig(RewardedConfig):
    """RLHF: trains the policy on rewards; vLLM engines generate. Only roles that the algorithm needs are started."""

    recipe_key: ClassVar[str] = "ppo"
    may_grow: ClassVar[frozenset[str]] = frozenset({"steps"})

    prompts: PromptData
    steps: int = Field(ge=1, description="number of steps; each generates, scores, updates, and publishes weights")
    prompts_per_step: int = Field(32, ge=1, description="prompts per step")
    samples_per_prompt: int = Field(1, ge=1, description="responses per prompt")
    algorithm: AlgorithmConfig = AlgorithmConfig()
    policy: TrainedRoleConfig
    critic: TrainedRoleConfig | None = Field(None, description="value model; required by algorithm.name ppo")
    reference: FrozenRoleConfig | None = Field(
        None,
        description="frozen model to which algorithm.kl_coef keeps the policy close; null with policy.lora: the policy "
        "without its LoRA matrices",
    )
    rollout: OverlappedRolloutConfig = OverlappedRolloutConfig()
    publish: PublishConfig = PublishConfig()
    colocate: Colocate = Field(
        "none",
        description="roles that share a placement group and its CPUs and GPUs: none, all, or groups such as "
        "[[policy, critic], [reference, reward]]",
    )
    sleep: bool = Field(
        False,
        description="roles that share GPUs (colocate) take turns: while one computes, the others free their GPU memory "
        "(vLLM's sleep mode; trained and frozen models are moved to host memory)",
    )
    samples_every: int = Field(10, ge=1, description="steps between writes of sampled responses to samples/")
    evaluation: EvaluationConfig | None = Field(None, description="evaluate the policy on tasks during training")
    checkpoint_every: int = Field(10, ge=1, description="steps between checkpoints of policy and critic")
    keep_checkpoints: int = Field(2, ge=1, description="number of newest checkpoints that are kept")
    critic_warmup_steps: int = Field(0, ge=0, description="number of initial steps in which only the critic is trained")
    stop: StopConfig = StopConfig()
    max_failures: int = Field(
        3,
        ge=0,
        description="how many times lost processes of a role are replaced within failure_window_s, or within one "
        "step, before the run fails",
    )
    failure_window_s: float = Field(
        600.0, gt=0, description="seconds after which a loss no longer counts toward max_failures"
    )

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
    def policy_columns(self) -> tuple[str, ...]:
        """The columns that the policy adds to the responses before an update."""
        is_reference = self.algorithm.kl_coef > 0 and self.reference is None
        return (() if self.skips_old_logprobs else ("logprobs",)) + (("ref_logprobs",) if is_reference else ())

    @property
    def placement_groups(self) -> list[PlacementGroupSpec]:
        """The placement groups of the roles."""
        return placement_group_specs(self.colocate, {role: settings.placement for role, settings in self.roles.items()})

    @property
    def sleep_level(self) -> SleepLevel:
        """vLLM's sleep level of the engines; 0 if they do not share GPUs, or not in turns."""
        sharing = [role for spec in self.placement_groups for role in spec.sharing()]
        if not self.sleep or "rollout" not in sharing:
            return 0
        # With dynamic sampling, more responses may be generated with weights that were published before.
        return 1 if self.algorithm.dynamic_sampling else 2

    @property
    def skips_old_logprobs(self) -> bool:
        """Whether the separate forward pass for the old log-probabilities is skipped.

        With one optimizer step per PPO step, the loss uses its own detached log-probabilities as the old ones. The pass
        is still needed if the KL penalty in the reward or the rollout correction uses them.
        """
        algorithm = self.algorithm
        once = algorithm.epochs * algorithm.minibatches == 1
        kl_in_reward = algorithm.kl_in == "reward" and algorithm.kl_coef > 0
        return once and not kl_in_reward and algorithm.rollout_correction == "none"

    @property
    def rows_per_step(self) -> int:
        """Number of responses per step."""
        return self.prompts_per_step * self.samples_per_prompt

    @property
    def length_matters(self) -> bool:
        """Whether a learning rate decays towards the last step."""
        learners = (role for role in self.roles.values() if isinstance(role, TrainedRoleConfig))
        return any(learner.optimizer.decays for learner in learners)

    @property
    def updates(self) -> int:
        """Number of optimizer steps of the whole run."""
        return self.steps * self.algorithm.epochs * self.algorithm.minibatches

    @model_validator(mode="after")
    def _batch_divides(self) -> PPOConfig:
        product = f"prompts_per_step {self.prompts_per_step} x samples_per_prompt {self.samples_per_prompt}"
        if self.rows_per_step % self.algorithm.minibatches:
            raise ValueError(
                f"{product} = {self.rows_per_step} samples are not divisible by algorithm.minibatches "
                f"{self.algorithm.minibatches}; set minibatches to a divisor"
            )
        for role in ("policy", "critic"):
            if role not in self.roles:
                continue
            ranks = self.roles[role].placement.ranks
            if self.rows_per_step // self.algorithm.minibatches % ranks:
                raise ValueError(
                    f"a minibatch of {self.rows_per_step // self.algorithm.minibatches} samples ({product}, "
                    f"algorithm.minibatches {self.algorithm.minibatches}) is not divisible by {role}.placement.ranks "
                    f"{ranks}; change one of them so that it is"
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
                "algorithm.name ppo requires a critic, and none is set: set critic.model, or choose another "
                "algorithm.name"
            )
        if self.critic_warmup_steps and not algorithm.has_critic:
            raise ValueError(
                f"critic_warmup_steps {self.critic_warmup_steps}: algorithm.name {algorithm.name} has no critic; "
                "set it to 0"
            )
        if algorithm.kl_coef > 0 and self.reference is None and self.policy.lora is None:
            raise ValueError(
                f"algorithm.kl_coef {algorithm.kl_coef:g} requires a reference, and none is set: set "
                "reference.model, policy.lora, or algorithm.kl_coef to 0"
            )
        if algorithm.kl_target is not None and algorithm.kl_coef == 0:
            raise ValueError(
                "algorithm.kl_target adapts algorithm.kl_coef, which is 0: set kl_coef above 0, or remove kl_target"
            )
        if algorithm.compares_responses and self.samples_per_prompt < 2:
            raise ValueError(
                f"algorithm.name {algorithm.name} compares responses to the same prompt: set samples_per_prompt "
                "to 2 or more"
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
                "algorithm.dynamic_sampling compares responses to the same prompt: set samples_per_prompt to 2 "
                "or more, or dynamic_sampling to 0"
            )
        if algorithm.dynamic_sampling and self.rollout.ahead:
            raise ValueError(
                "algorithm.dynamic_sampling needs a step's rewards before it generates more, so rollout.ahead "
                "must be 0: set one of them to 0"
            )
        if self.rollout.in_flight != "none" and not (
            self.rollout.ahead and algorithm.rollout_correction == "truncated"
        ):
            raise ValueError(
                f"rollout.in_flight {self.rollout.in_flight} mixes tokens of several weights versions in one "
                "response: set rollout.ahead to 1 or more and algorithm.rollout_correction to truncated, or "
                "in_flight to none"
            )
        return self

    @model_validator(mode="after")
    def _sleep_has_its_turns(self) -> PPOConfig:
        if self.sleep and not any(spec.sharing() for spec in self.placement_groups):
            raise ValueError(
                f"sleep true: no roles with a model share a placement group; set colocate, which is {self.colocate}, to "
                "all or to groups of roles, or sleep to false"
            )
        if self.sleep_level and self.rollout.ahead:
            raise ValueError(
                f"rollout.ahead {self.rollout.ahead} generates while other roles compute, and with sleep true they would "
                "have to share the engine's GPU at the same time: set ahead to 0, or sleep to false"
            )
        return self

    @model_validator(mode="after")
    def _transport_has_its_hardware(self) -> PPOConfig:
        if self.publish.transport == "vllm_nccl" and not (
            self.policy.placement.gpus_per_rank >= 1 and self.rollout.placement.gpus_per_rank >= 1
        ):
            raise ValueError(
                "publish.transport vllm_nccl requires one whole GPU per rank, because NCCL does not share GPUs: "
                "set policy.placement.gpus_per_rank and rollout.placement.gpus_per_rank to 1, or transport to "
                "object_store"
            )
        return self

    @model_validator(mode="after")
    def _roles_fit_together(self) -> PPOConfig:
        for spec in self.placement_groups:
            if not self.sleep:
                require_memory_share(spec, self.rollout)
            if self.publish.transport == "vllm_nccl" and {"policy", "rollout"} <= set(spec.roles):
                raise ValueError(
                    "colocate puts policy and rollout on the same GPU, and NCCL cannot transfer weights within one "
                    "GPU: set publish.transport to object_store, or put the two in different groups"
                )
        return self
