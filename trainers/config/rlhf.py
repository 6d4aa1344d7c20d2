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
    max_tokens: int = Field(1024, ge=1, description="maximum prompt length in tokens; a longer prompt is an error")


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
        None, description="frozen model to which algorithm.kl_coef keeps the policy close"
    )
    rollout: OverlappedRolloutConfig = OverlappedRolloutConfig()
    publish: PublishConfig = PublishConfig()
    colocate: Colocate = Field(
        "none",
        description="roles that share a placement group and its CPUs and GPUs: none, all, or groups such as "
        "[[policy, critic], [reference, reward]]",
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
    def placement_groups(self) -> list[PlacementGroupSpec]:
        """The placement groups of the roles."""
        return placement_group_specs(self.colocate, {role: settings.placement for role, settings in self.roles.items()})

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
        if algorithm.kl_coef > 0 and self.reference is None:
            raise ValueError(
                f"algorithm.kl_coef {algorithm.kl_coef:g} requires a reference, and none is set: set "
                "reference.model, or algorithm.kl_coef to 0"
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
            require_memory_share(spec, self.rollout)
            if self.publish.transport == "vllm_nccl" and {"policy", "rollout"} <= set(spec.roles):
                raise ValueError(
                    "colocate puts policy and rollout on the same GPU, and NCCL cannot transfer weights within one "
                    "GPU: set publish.transport to object_store, or put the two in different groups"
                )
        return self
