"""Settings of the supervised stages: pretraining, SFT, reward model, DPO. Does not import torch."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from actors.config import (
    ArchitectureConfig,
    LoraConfig,
    OptimizerConfig,
    PlacementConfig,
    ZeroConfig,
    require_gpus_of_their_own,
)
from actors.precision import AUTO, Dtype, settle_dtype, settle_dtype_of
from cluster.config import ClusterConfig
from configs.base import Section
from data.chat.config import ChatConfig


class StageConfig(Section):
    """Settings that every stage has."""

    name: str = Field(description="name of the run, which is its folder below runs/")
    seed: int = Field(0, ge=0, description="seed of random initial weights, of the order of samples, and of sampling")
    cluster: ClusterConfig = ClusterConfig()
    chat: ChatConfig = ChatConfig()


class EvaluationConfig(Section):
    """Tasks of evals.run on which the weights are evaluated at intervals; training waits during an evaluation."""

    tasks: tuple[str, ...] = Field(
        min_length=1, description="tasks such as [choice, ner] or [cmmlu]; see evals.run --help"
    )
    data: str = Field(description="folder of the tasks' tables and files")
    every: int = Field(100, ge=1, description="steps between evaluations; the last step is always evaluated")
    limit: int = Field(100, ge=1, description="maximum number of items per table or file")
    shots: int = Field(0, ge=0, description="number of few-shot examples before a choice question")
    method: Literal["likelihood", "generation"] = Field(
        "likelihood",
        description="how an option of a choice question is selected: by its likelihood or from a generated reply",
    )
    threads: int = Field(1, ge=1, description="OMP threads of the evaluation process")
    gpus: float = Field(0.0, ge=0, description="GPUs that the evaluation process reserves")
    max_model_len: int | None = Field(
        None, ge=16, description="context of the evaluation engine, in tokens; null: the model's context, at most 4,096"
    )
    dtype: Dtype = Field("auto", description=f"precision of the evaluation engine; {AUTO}")

    @field_validator("dtype", mode="before")
    @classmethod
    def _null_is_auto(cls, given: Any) -> Any:
        return "auto" if given is None else given  # earlier versions wrote null to config.yaml

    @model_validator(mode="after")
    def _dtype_by_gpus(self) -> EvaluationConfig:
        return settle_dtype(self, self.gpus > 0)


class TrainTables(Section):
    """Training tables."""

    train: tuple[str, ...] = Field(
        min_length=1,
        description="tables (.parquet or .jsonl), folders of .parquet files, or hf://datasets/org/name/split; "
        "each entry is a source",
    )
    weights: tuple[float, ...] | None = Field(
        None,
        description="share of each entry of `train` in the training samples, one number per entry; null: by number "
        "of rows",
    )

    @model_validator(mode="after")
    def _a_weight_an_entry(self) -> Self:
        if self.weights is not None and len(self.weights) != len(self.train):
            raise ValueError(
                f"weights has {len(self.weights)} numbers for {len(self.train)} entries of train; give one "
                "number per entry"
            )
        if self.weights is not None and not all(0 < weight < math.inf for weight in self.weights):
            raise ValueError(
                f"weights {list(self.weights)}: each must be finite and above 0; remove unwanted entries from "
                "train instead"
            )
        return self


class PretrainData(TrainTables):
    """Medical text: tables with a `text` column, packed into blocks."""

    heldout: tuple[str, ...] = Field(
        min_length=1, description="tables of the same kind for held-out evaluation, not trained on"
    )
    block_tokens: int = Field(
        4096, ge=16, description="tokens per block; documents in a block do not attend to each other"
    )


class HeldoutData(Section):
    """Held-out chats or preference pairs, and the length limit of a sample."""

    heldout: tuple[str, ...] = Field(
        min_length=1, description="tables of the same kind for held-out evaluation, not trained on"
    )
    max_tokens: int = Field(4096, ge=16, description="maximum sample length in tokens; at most the model's context")
    too_long: Literal["refuse", "cut", "drop"] = Field(
        "refuse", description="what to do with a longer sample: refuse to train, cut it to max_tokens, or drop it"
    )


class ChatData(HeldoutData, TrainTables):
    """Chats or preference pairs for training and evaluation."""


class TrainingConfig(Section):
    """Settings of a supervised training loop over packed batches."""

    placement: PlacementConfig = PlacementConfig()
    zero: ZeroConfig = ZeroConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    lora: LoraConfig | None = Field(None, description="LoRA: train low-rank matrices instead of all weights")
    dropout: bool = Field(
        False, description="train with the dropout probabilities of the model's config.json; false: without dropout"
    )
    epochs: float = Field(1.0, gt=0, description="passes over the training samples")
    max_steps: int | None = Field(
        None, ge=1, description="maximum number of optimizer steps, if epochs would take more"
    )
    batch_size: int = Field(8, ge=1, description="samples per optimizer step, over all ranks")
    micro_batch_tokens: int = Field(4096, ge=16, description="tokens of one forward and backward pass on one rank")
    eval_every: int = Field(
        100, ge=1, description="optimizer steps between held-out evaluations; the last step is always evaluated"
    )
    eval_at_start: bool = Field(
        False, description="also evaluate the starting weights on the held-out rows, logged as step 0"
    )
    export: Literal["last", "best", "both"] = Field(
        "last",
        description="weights that model/ holds. last: after the last step; best: those with the lowest held-out "
        "loss, which are also kept in best/; both: last in model/, best in best/",
    )
    checkpoint_every: int = Field(
        100, ge=1, description="optimizer steps between checkpoints; no checkpoint is written at the end"
    )
    keep_checkpoints: int = Field(2, ge=1, description="number of newest checkpoints that are kept")
    max_failures: int = Field(3, ge=0, description="how many times lost workers are replaced before the stage fails")

    @model_validator(mode="after")
    def _dtype_by_placement(self) -> Self:
        return settle_dtype_of(self, "zero", self.placement.on_gpus)

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        if self.batch_size % self.placement.ranks:
            raise ValueError(
                f"batch_size {self.batch_size} is not divisible by placement.ranks {self.placement.ranks}; set "
                "it to a multiple"
            )
        return self

    def _sample_fits(self, field: str, tokens: int) -> None:
        """Raises ValueError if a micro-batch is too small for one sample of `tokens` tokens, the value of `field`."""
        if self.micro_batch_tokens < tokens:
            raise ValueError(
                f"micro_batch_tokens {self.micro_batch_tokens} is less than {field} {tokens}, so one sample "
                f"would not fit; raise micro_batch_tokens or lower {field}"
            )


class SupervisedConfig(TrainingConfig, StageConfig):
    """Settings that pretraining, SFT, reward-model training, and DPO share."""

    may_change: ClassVar[frozenset[str]] = frozenset({"placement", "cluster", "max_failures", "replan"})
    may_grow: ClassVar[frozenset[str]] = frozenset({"epochs", "max_steps"})
    longer_with: ClassVar[str] = (
        "--replan=true, which changes the learning rate of the steps after the newest checkpoint"
    )

    replan: bool = Field(
        False,
        description="let the run be made longer although its learning rate decays: the steps after its newest "
        "checkpoint follow the schedule of the new length",
    )
    evaluation: EvaluationConfig | None = Field(
        None, description="evaluate the language model on tasks during training"
    )

    @property
    def length_matters(self) -> bool:
        """Whether the learning rate decays towards the last step and may not be planned again."""
        return self.optimizer.decays and not self.replan

    @model_validator(mode="after")
    def _ranks_have_their_own_gpus(self) -> SupervisedConfig:
        require_gpus_of_their_own(self.placement, "set gpus_per_rank to 1")
        return self


class PretrainConfig(SupervisedConfig):
    """Pretraining: next-token prediction on packed blocks, from random weights or from a base model."""

    recipe_key: ClassVar[str] = "pretrain"

    data: PretrainData
    architecture: ArchitectureConfig | None = Field(None, description="shape of a new model with random weights")
    model: str | None = Field(
        None, description="base model to continue from: a folder in Hugging Face format or a Hub id"
    )
    tokenizer: str | None = Field(None, description="tokenizer of a new model: a folder or a Hub id")
    export_start: bool = Field(False, description="also export the weights before the first step, to runs/NAME/random")

    @model_validator(mode="after")
    def _one_start(self) -> PretrainConfig:
        if (self.architecture is None) == (self.model is None):
            given = "neither" if self.model is None else "both"
            raise ValueError(f"{given} of architecture and model given: set exactly one, to start from")
        if self.architecture is not None and self.tokenizer is None:
            raise ValueError(
                "architecture creates a new model, which needs a tokenizer: set tokenizer to a folder or a Hub id"
            )
        if self.model is not None and self.tokenizer is not None:
            raise ValueError("model has its own tokenizer: remove tokenizer")
        if self.architecture is not None and self.data.block_tokens > self.architecture.context:
            raise ValueError(
                f"data.block_tokens {self.data.block_tokens} exceeds architecture.context "
                f"{self.architecture.context}: lower data.block_tokens or raise architecture.context"
            )
        self._sample_fits("data.block_tokens", self.data.block_tokens)
        return self


class SftConfig(SupervisedConfig):
    """Supervised fine-tuning: next-token prediction on the assistant's turns of chats, with other tokens masked."""

    recipe_key: ClassVar[str] = "sft"

    data: ChatData
    model: str = Field(description="model to start from: a folder in Hugging Face format or a Hub id")
    train_on: Literal["every_response", "last_response"] = Field(
        "every_response", description="which assistant turns of a chat are trained on; the others are masked"
    )

    @model_validator(mode="after")
    def _chat_fits(self) -> SftConfig:
        self._sample_fits("data.max_tokens", self.data.max_tokens)
        return self


class RewardConfig(SupervisedConfig):
    """Reward model: a scalar head trained on preference pairs with the Bradley-Terry loss."""

    recipe_key: ClassVar[str] = "reward"

    data: ChatData
    model: str = Field(description="causal language model to which a scalar head is added: a folder or a Hub id")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="assumed probability that a pair's label is wrong")

    @model_validator(mode="after")
    def _answers_nothing(self) -> RewardConfig:
        if self.evaluation is not None:
            raise ValueError(
                "evaluation is for language models; a reward model is evaluated by the heldout_* metrics: "
                "remove evaluation"
            )
        return self

    @model_validator(mode="after")
    def _pair_fits(self) -> RewardConfig:
        self._sample_fits("twice data.max_tokens", 2 * self.data.max_tokens)
        return self


class DpoConfig(SupervisedConfig):
    """Direct preference optimization: trains on preference pairs; the starting model is the reference."""

    recipe_key: ClassVar[str] = "dpo"

    data: ChatData
    model: str = Field(description="model to start from, which is also the reference: a folder or a Hub id")
    beta: float = Field(
        0.1, gt=0, description="beta of the DPO loss; larger values keep the model closer to the reference"
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="assumed probability that a pair's label is wrong; above 0 this is conservative DPO",
    )

    @model_validator(mode="after")
    def _pair_fits(self) -> DpoConfig:
        self._sample_fits("twice data.max_tokens", 2 * self.data.max_tokens)
        return self
