"""Settings of every stage, and the table of stages that a recipe may have. Reading this file imports no torch."""

from __future__ import annotations

from typing import ClassVar, Literal

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


class ChatData(Section):
    """Chats or preference pairs, encoded whole."""

    train: tuple[str, ...] = Field(min_length=1, description="tables of samples, .parquet or .jsonl")
    heldout: tuple[str, ...] = Field(min_length=1, description="tables of the same kind that are only evaluated on")
    max_tokens: int = Field(4096, ge=16, description="longest sample, in tokens; at most the model's context")
    too_long: Literal["refuse", "cut", "drop"] = Field(
        "refuse", description="what happens to a longer sample: refuse to train, cut it to max_tokens, or leave it out"
    )


class SupervisedConfig(StageConfig):
    """What pretraining, SFT, reward-model training and DPO share: one loop over packed batches."""

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
    def _batch_divides(self) -> SupervisedConfig:
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


class DpoConfig(SupervisedConfig):
    """Direct preference optimisation: the model learns from preference pairs, compared with the one it started from."""

    recipe_key: ClassVar[str] = "dpo"

    data: ChatData
    model: str = Field(description="folder of the model to start from, which is also the reference")
    beta: float = Field(0.1, gt=0, description="how strongly the model is kept to the reference")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="probability that a pair's label is wrong; above 0 this is conservative DPO"
    )

    @model_validator(mode="after")
    def _pair_fits(self) -> DpoConfig:
        self._sample_fits("twice data.max_tokens", 2 * self.data.max_tokens)
        return self


class PromptData(Section):
    """Prompts that PPO answers."""

    train: tuple[str, ...] = Field(min_length=1, description="tables with a `prompt` column of messages")
    max_tokens: int = Field(1024, ge=1, description="longest prompt, in tokens; a longer one is refused by name")


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
        longest = self.prompts.max_tokens + self.rollout.max_new_tokens
        if longest > self.rollout.engine.max_model_len:
            raise ValueError(
                f"prompts.max_tokens {self.prompts.max_tokens} + rollout.max_new_tokens "
                f"{self.rollout.max_new_tokens} = {longest} exceeds rollout.engine.max_model_len "
                f"{self.rollout.engine.max_model_len}; lower one of the first two or raise the last"
            )
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


STAGES: dict[str, type[Section]] = {
    "pretrain": PretrainConfig,
    "sft": SftConfig,
    "reward": RewardConfig,
    "dpo": DpoConfig,
    "ppo": PPOConfig,
}
