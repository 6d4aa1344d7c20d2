"""Settings of every stage, and the table of stages that a recipe may have. Reading this file imports no torch."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from actors.config import (
    ArchitectureConfig,
    FrozenRoleConfig,
    OptimizerConfig,
    PlacementConfig,
    PublishConfig,
    RolloutConfig,
    TrainedRoleConfig,
    ZeroConfig,
)
from cluster.config import ClusterConfig
from configs.base import Section


class StageConfig(Section):
    """What every stage has."""

    name: str = Field(description="the run's folder below runs/")
    seed: int = Field(0, ge=0, description="decides weights made from nothing, the order of samples, and sampling")
    cluster: ClusterConfig = ClusterConfig()


class PretrainData(Section):
    """Medical text, cut into blocks."""

    train: tuple[str, ...] = Field(min_length=1, description="tables with a `text` column, .parquet or .jsonl")
    heldout: tuple[str, ...] = Field(min_length=1, description="tables of the same kind that are only evaluated on")
    block_tokens: int = Field(4096, ge=16, description="tokens of a block; documents in it cannot see each other")


class HeldoutData(Section):
    """Chats or preference pairs that are only evaluated on, and how long a sample may be."""

    heldout: tuple[str, ...] = Field(min_length=1, description="tables of the same kind that are only evaluated on")
    max_tokens: int = Field(4096, ge=16, description="longest sample, in tokens; at most the model's context")
    too_long: Literal["refuse", "cut", "drop"] = Field(
        "refuse", description="what happens to a longer sample: refuse to train, cut it to max_tokens, or leave it out"
    )


class ChatData(HeldoutData):
    """Chats or preference pairs, encoded whole."""

    train: tuple[str, ...] = Field(min_length=1, description="tables of samples, .parquet or .jsonl")


class LearningConfig(Section):
    """One supervised training: a loop over packed batches."""

    placement: PlacementConfig = PlacementConfig()
    zero: ZeroConfig = ZeroConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    epochs: float = Field(1.0, gt=0, description="passes over the training samples")
    max_steps: int | None = Field(
        None, ge=1, description="end after this many optimiser steps, if epochs would be more"
    )
    batch_size: int = Field(8, ge=1, description="samples of one optimiser step, over all ranks")
    micro_batch_tokens: int = Field(4096, ge=16, description="tokens of one forward and backward pass on one rank")
    eval_every: int = Field(100, ge=1, description="optimiser steps between held-out evaluations; one is at the end")
    checkpoint_every: int = Field(100, ge=1, description="optimiser steps between checkpoints; none is made at the end")
    keep_checkpoints: int = Field(2, ge=1, description="checkpoints that are kept, the newest")
    max_failures: int = Field(3, ge=0, description="how many times dead workers are replaced before the stage gives up")

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        if self.batch_size % self.placement.ranks:
            raise ValueError(
                f"batch_size {self.batch_size} is not divisible by placement.ranks {self.placement.ranks}; "
                f"make it a multiple"
            )
        return self

    def _sample_fits(self, field: str, tokens: int) -> None:
        """Refuses a micro-batch too small for one sample of `tokens`."""
        if self.micro_batch_tokens < tokens:
            raise ValueError(
                f"micro_batch_tokens {self.micro_batch_tokens} is less than {field} {tokens}, so one sample would not "
                f"fit; raise the one or lower the other"
            )


class SupervisedConfig(LearningConfig, StageConfig):
    """What pretraining, SFT and reward-model training share."""


class PretrainConfig(SupervisedConfig):
    """Pretraining: next-token prediction on packed blocks, from random weights or from a base model."""

    recipe_key: ClassVar[str] = "pretrain"

    data: PretrainData
    architecture: ArchitectureConfig | None = Field(None, description="shape of a new model with random weights")
    model: str | None = Field(None, description="folder of a base model to continue from, in Hugging Face format")
    tokenizer: str | None = Field(None, description="folder of the tokenizer of a new model")
    export_start: bool = Field(False, description="also export the weights before the first step, to runs/NAME/random")

    @model_validator(mode="after")
    def _one_start(self) -> PretrainConfig:
        if (self.architecture is None) == (self.model is None):
            given = "neither" if self.model is None else "both"
            raise ValueError(f"{given} of architecture and model given: name the one to start from")
        if self.architecture is not None and self.tokenizer is None:
            raise ValueError("architecture makes a new model, which needs a tokenizer: give its folder")
        if self.model is not None and self.tokenizer is not None:
            raise ValueError("model brings its own tokenizer: leave tokenizer out")
        if self.architecture is not None and self.data.block_tokens > self.architecture.context:
            raise ValueError(
                f"data.block_tokens {self.data.block_tokens} exceeds architecture.context {self.architecture.context}"
            )
        self._sample_fits("data.block_tokens", self.data.block_tokens)
        return self


class SftConfig(SupervisedConfig):
    """Supervised fine-tuning: next-token prediction on the assistant's turns of chats, everything else masked."""

    recipe_key: ClassVar[str] = "sft"

    data: ChatData
    model: str = Field(description="folder of the model to start from, in Hugging Face format")
    learn: Literal["every_answer", "last_answer"] = Field(
        "every_answer", description="which of the assistant's turns of a chat are learnt; the others are only read"
    )

    @model_validator(mode="after")
    def _chat_fits(self) -> SftConfig:
        self._sample_fits("data.max_tokens", self.data.max_tokens)
        return self


class RewardConfig(SupervisedConfig):
    """Reward model: a scalar head trained on preference pairs with the Bradley-Terry loss."""

    recipe_key: ClassVar[str] = "reward"

    data: ChatData
    model: str = Field(description="folder of the causal model whose weights the scalar head is put on")

    @model_validator(mode="after")
    def _pair_fits(self) -> RewardConfig:
        self._sample_fits("twice data.max_tokens", 2 * self.data.max_tokens)
        return self


class PromptData(Section):
    """Prompts that the policy answers."""

    train: tuple[str, ...] = Field(min_length=1, description="tables with a `prompt` column of messages")
    max_tokens: int = Field(1024, ge=1, description="longest prompt, in tokens; a longer one is refused by name")


def require_room(prompts: PromptData, rollout: RolloutConfig, field: str, tokens: int) -> None:
    """Refuses a prompt and an answer that together may be longer than the `tokens` of `field`."""
    longest = prompts.max_tokens + rollout.max_new_tokens
    if longest > tokens:
        raise ValueError(
            f"prompts.max_tokens {prompts.max_tokens} + rollout.max_new_tokens {rollout.max_new_tokens} = {longest} "
            f"exceeds {field} {tokens}; lower one of the first two or raise the last"
        )


class AlgorithmConfig(Section):
    """PPO with a critic."""

    gamma: float = Field(1.0, gt=0, le=1, description="discount of a later reward, a token")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="lambda of generalised advantage estimation")
    clip_eps: float = Field(0.2, gt=0, description="the policy's probability ratio is clipped to 1 +- this")
    value_clip_eps: float = Field(0.5, gt=0, description="new values are clipped to the old ones +- this")
    kl_coef: float = Field(0.05, ge=0, description="weight of the KL to the reference, taken from each token's reward")
    kl_estimator: Literal["k1", "k2", "k3"] = Field("k1", description="estimator of that KL")
    reward_clip: float = Field(10.0, gt=0, description="rewards are clipped to +- this before anything else")
    whiten_advantages: bool = Field(True, description="advantages of a step get mean 0 and variance 1 over its tokens")
    epochs: int = Field(1, ge=1, description="passes over a step's samples")
    minibatches: int = Field(1, ge=1, description="optimiser steps a pass")


class PPOConfig(StageConfig):
    """RLHF by PPO: policy and critic learn, reference and reward only read, vLLM engines generate."""

    recipe_key: ClassVar[str] = "ppo"

    prompts: PromptData
    steps: int = Field(ge=1, description="PPO steps: generate, score, learn, publish")
    prompts_per_step: int = Field(32, ge=1, description="different prompts answered in one step")
    samples_per_prompt: int = Field(1, ge=1, description="answers to each prompt")
    algorithm: AlgorithmConfig = AlgorithmConfig()
    policy: TrainedRoleConfig
    critic: TrainedRoleConfig
    reference: FrozenRoleConfig
    reward: FrozenRoleConfig
    rollout: RolloutConfig = RolloutConfig()
    publish: PublishConfig = PublishConfig()
    checkpoint_every: int = Field(10, ge=1, description="steps between checkpoints of policy and critic")
    keep_checkpoints: int = Field(2, ge=1, description="checkpoints that are kept, the newest")
    critic_warmup_steps: int = Field(0, ge=0, description="first steps in which only the critic learns")
    max_failures: int = Field(
        3, ge=0, description="how many times dead roles are started again before the run gives up"
    )

    @property
    def rows_per_step(self) -> int:
        """Samples of one step."""
        return self.prompts_per_step * self.samples_per_prompt

    @property
    def updates(self) -> int:
        """Optimiser steps of the whole run."""
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
            ranks = getattr(self, role).placement.ranks
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
    def _transport_has_its_hardware(self) -> PPOConfig:
        if self.publish.transport == "vllm_nccl" and not (
            self.policy.placement.gpus_per_rank and self.rollout.placement.gpus_per_rank
        ):
            raise ValueError(
                "publish.transport vllm_nccl needs GPUs: set policy.placement.gpus_per_rank and "
                "rollout.placement.gpus_per_rank, or use object_store"
            )
        return self


class SelectionConfig(Section):
    """Which of a round's answers are learnt. One that was cut off, or that the chat format cannot hold, never is."""

    by: Literal["per_prompt", "global_top_k"] = Field(
        "per_prompt", description="per_prompt: the best answer to each prompt; global_top_k: the k best of all answers"
    )
    k: int | None = Field(None, ge=1, description="how many answers global_top_k chooses in a round")
    one_per_prompt: bool = Field(True, description="global_top_k: choose at most one answer to a prompt")
    min_reward: float | None = Field(None, description="an answer with less is never chosen")

    @model_validator(mode="after")
    def _only_what_is_used(self) -> SelectionConfig:
        if self.by == "global_top_k" and self.k is None:
            raise ValueError("selection.by global_top_k needs selection.k: say how many answers a round is to give")
        if self.by == "per_prompt" and self.k is not None:
            raise ValueError("selection.k goes with selection.by global_top_k only: leave it out or change the latter")
        if self.by == "per_prompt" and not self.one_per_prompt:
            raise ValueError("selection.one_per_prompt false goes with selection.by global_top_k only")
        return self


class FineTuneConfig(LearningConfig):
    """The supervised fine-tuning of each round."""

    data: HeldoutData


class RejectionConfig(StageConfig):
    """Rejection-sampling fine-tuning: answer every prompt N times, keep what the reward model likes best, learn it."""

    recipe_key: ClassVar[str] = "rejection"

    model: str = Field(description="folder of the model to start from, in Hugging Face format")
    prompts: PromptData
    rounds: int = Field(1, ge=1, description="how many times to generate, select and fine-tune")
    prompts_per_round: int | None = Field(
        None, ge=1, description="prompts answered in a round, in an order that goes on from round to round; else all"
    )
    prompts_per_step: int = Field(
        128, ge=1, description="prompts that are answered, scored and written to the journal at a time"
    )
    samples_per_prompt: int = Field(4, ge=1, description="answers to each prompt")
    rollout: RolloutConfig = RolloutConfig()
    reward: FrozenRoleConfig
    selection: SelectionConfig = SelectionConfig()
    replay: tuple[str, ...] = Field((), description="SFT tables that are mixed in against forgetting")
    replay_share: float = Field(0.0, ge=0, lt=1, description="share of the fine-tuning's rows that come from `replay`")
    from_start: bool = Field(
        False, description="each round fine-tunes the first model on the choices of all rounds so far, not the last one"
    )
    sft: FineTuneConfig
    max_failures: int = Field(
        3, ge=0, description="how many times dead roles are started again before the run gives up"
    )

    @model_validator(mode="after")
    def _replay_has_share(self) -> RejectionConfig:
        if bool(self.replay) != (self.replay_share > 0):
            raise ValueError("replay and replay_share go together: give both or neither")
        return self

    @model_validator(mode="after")
    def _prompt_and_answer_fit(self) -> RejectionConfig:
        require_room(self.prompts, self.rollout, "rollout.engine.max_model_len", self.rollout.engine.max_model_len)
        require_room(self.prompts, self.rollout, "sft.data.max_tokens", self.sft.data.max_tokens)
        return self


STAGES: dict[str, type[Section]] = {
    "pretrain": PretrainConfig,
    "sft": SftConfig,
    "reward": RewardConfig,
    "ppo": PPOConfig,
    "rejection": RejectionConfig,
}
