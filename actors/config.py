"""Settings of the roles: model, placement, precision, optimizer, engine, and publishing. Imports no torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from actors.precision import AUTO, Dtype, settle_dtype, settle_dtype_of
from actors.rewards.config import FunctionRewardConfig, HttpRewardConfig
from configs.base import Section


class ArchitectureConfig(Section):
    """Shape of a new LLaMA model with random weights."""

    hidden_size: int = Field(256, ge=8, description="hidden size: width of the residual stream")
    intermediate_size: int = Field(688, ge=8, description="width of the feed-forward layer")
    layers: int = Field(6, ge=1, description="decoder layers")
    heads: int = Field(4, ge=1, description="attention heads")
    kv_heads: int = Field(4, ge=1, description="key and value heads; fewer than `heads` is grouped-query attention")
    context: int = Field(4096, ge=16, description="context length, in tokens")
    rope_theta: float = Field(10_000.0, gt=0, description="base of the rotary position embedding")
    tie_embeddings: bool = Field(True, description="share the input and output embedding matrices")

    @model_validator(mode="after")
    def _heads_divide(self) -> ArchitectureConfig:
        if self.hidden_size % self.heads or self.heads % self.kv_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of heads {self.heads}, "
                f"and heads of kv_heads {self.kv_heads}"
            )
        return self


class PlacementConfig(Section):
    """Where a role runs: `ranks` processes, each with its own share of CPUs and GPUs."""

    ranks: int = Field(1, ge=1, description="number of processes in the role's torch.distributed world")
    cpus_per_rank: float = Field(1.0, ge=0, description="CPUs that one rank reserves in its placement group")
    gpus_per_rank: float = Field(0.0, ge=0, description="GPUs that one rank reserves in its placement group")
    threads: int = Field(1, ge=1, description="OMP threads per rank")

    @property
    def on_gpus(self) -> bool:
        """Whether the ranks have GPUs."""
        return self.gpus_per_rank > 0

    @model_validator(mode="after")
    def _ray_can_give_it(self) -> PlacementConfig:
        if not self.cpus_per_rank + self.gpus_per_rank:
            raise ValueError("cpus_per_rank 0 and gpus_per_rank 0 reserve no resources: raise one of them")
        if self.gpus_per_rank > 1 and self.gpus_per_rank % 1:
            raise ValueError(
                f"gpus_per_rank {self.gpus_per_rank:g} is above 1 and not a whole number: set it to a whole number"
            )
        return self


class ZeroConfig(Section):
    """DeepSpeed ZeRO settings of one model."""

    stage: Literal[0, 1, 2, 3] = Field(
        3, description="ZeRO stage: 0 shards nothing, 1 optimizer state, 2 also gradients, 3 also parameters"
    )
    dtype: Dtype = Field("auto", description=f"forward and backward precision; {AUTO}")
    offload_optimizer: bool = Field(False, description="keep the optimizer state in host memory")
    gradient_checkpointing: bool = Field(False, description="recompute activations in the backward pass")
    liger: bool = Field(
        False, description="use Liger's fused kernels for norms, rotary embeddings and feed-forward layers; GPUs only"
    )

    @model_validator(mode="after")
    def _dtype_without_placement(self) -> ZeroConfig:
        return settle_dtype(self, on_gpus=False)

    @model_validator(mode="after")
    def _offloads_what_it_shards(self) -> ZeroConfig:
        if self.offload_optimizer and not self.stage:
            raise ValueError("offload_optimizer requires a sharded optimizer: set stage to 1, 2, or 3")
        return self


class LoraConfig(Section):
    """LoRA: low-rank matrices that are trained instead of the model's weights and merged into them on export."""

    rank: int = Field(16, ge=1, description="rank of the low-rank matrices")
    alpha: float = Field(32.0, gt=0, description="scaling: the matrices' product is multiplied by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout probability on the adapters' inputs")
    targets: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        min_length=1,
        description="last part of the names of the linear layers that get adapters, such as q_proj",
    )


class OptimizerConfig(Section):
    """AdamW with a learning-rate warmup and schedule."""

    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    betas: tuple[float, float] = Field((0.9, 0.95), description="AdamW's moment decay rates")
    eps: float = Field(1e-8, gt=0, description="AdamW's epsilon")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay")
    max_grad_norm: float = Field(
        1.0, gt=0, description="maximum global norm of the gradient; larger gradients are clipped"
    )
    warmup_steps: int = Field(0, ge=0, description="optimizer steps of linear learning-rate warmup")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "cosine", description="learning-rate schedule after the warmup"
    )
    final_lr_ratio: float = Field(0.1, ge=0, le=1, description="final learning rate, as a fraction of the peak")

    @property
    def decays(self) -> bool:
        """Whether the learning rate of a step depends on the number of all steps."""
        return self.schedule != "constant" and self.final_lr_ratio < 1


def require_gpus_of_their_own(placement: PlacementConfig, todo: str) -> None:
    """Rejects a placement that could put several ranks of one world on the same GPU.

    Args:
        placement: the placement to check.
        todo: the advice that ends the error message.

    Raises:
        ValueError: `gpus_per_rank` is a fraction and there is more than one rank.
    """
    if placement.ranks > 1 and 0 < placement.gpus_per_rank < 1:
        raise ValueError(
            f"placement.gpus_per_rank {placement.gpus_per_rank:g} with placement.ranks {placement.ranks}: "
            f"two ranks could get the same GPU, which NCCL does not support; {todo}"
        )


class TrainedRoleConfig(Section):
    """A trained role: policy or critic."""

    model: str = Field(description="starting weights: a folder in Hugging Face format or a Hub id")
    placement: PlacementConfig = PlacementConfig()
    optimizer: OptimizerConfig = OptimizerConfig(schedule="constant")
    zero: ZeroConfig = ZeroConfig()
    lora: LoraConfig | None = Field(None, description="train LoRA matrices only; null: train all weights")
    micro_batch_tokens: int = Field(4096, ge=1, description="tokens of one forward and backward pass on one rank")

    @model_validator(mode="after")
    def _dtype_by_placement(self) -> TrainedRoleConfig:
        return settle_dtype_of(self, "zero", self.placement.on_gpus)

    @model_validator(mode="after")
    def _lora_is_exact(self) -> TrainedRoleConfig:
        if self.lora is not None and self.lora.dropout:
            raise ValueError(
                f"lora.dropout {self.lora.dropout:g}: RLHF needs the same log-probabilities before and in the first update; "
                "set it to 0"
            )
        return self

    @model_validator(mode="after")
    def _ranks_have_their_own_gpus(self) -> TrainedRoleConfig:
        require_gpus_of_their_own(self.placement, "set gpus_per_rank to 1, and share GPUs between roles with colocate")
        return self


class FrozenRoleConfig(Section):
    """A frozen role: reference or reward model."""

    model: str = Field(description="weights: a folder in Hugging Face format or a Hub id")
    placement: PlacementConfig = PlacementConfig()
    dtype: Dtype = Field("auto", description=f"forward precision; {AUTO}")
    micro_batch_tokens: int = Field(4096, ge=1, description="tokens of one forward pass on one rank")

    @model_validator(mode="after")
    def _dtype_by_placement(self) -> FrozenRoleConfig:
        return settle_dtype(self, self.placement.on_gpus)


class RewardFunctionConfig(Section):
    """Rewards from Python functions and HTTP endpoints; see docs/rewards.md."""

    placement: PlacementConfig = PlacementConfig(cpus_per_rank=0.25)
    functions: dict[str, FunctionRewardConfig] = Field({}, description="Python functions, by reward name")
    endpoints: dict[str, HttpRewardConfig] = Field({}, description="HTTP endpoints, by reward name")

    @property
    def sources(self) -> dict[str, float]:
        """The weight of every reward source, by name."""
        functions = {name: source.weight for name, source in self.functions.items()}
        return functions | {name: source.weight for name, source in self.endpoints.items()}

    @model_validator(mode="after")
    def _names_are_free(self) -> RewardFunctionConfig:
        names = [*self.functions, *self.endpoints]
        for name in names:
            if name == "model" or names.count(name) > 1:
                raise ValueError(f"reward_function: the name '{name}' is taken; rename that function or endpoint")
        if self.placement.ranks != 1:
            raise ValueError(
                f"reward_function.placement.ranks {self.placement.ranks}: reward functions run in one process; "
                "set ranks to 1"
            )
        return self


class EngineConfig(Section):
    """Settings of one vLLM engine."""

    dtype: Dtype = Field("auto", description=f"precision of the engine's weights; {AUTO}")
    tensor_parallel_size: int = Field(
        1,
        ge=1,
        description="processes of one engine, each with a part of every weight matrix; on GPUs, each has its own GPU",
    )
    max_model_len: int = Field(4096, ge=2, description="context length of the engine, in tokens")
    max_concurrent: int | None = Field(
        None,
        ge=1,
        description="maximum number of sequences that the engine decodes concurrently; null: on GPUs, as many of "
        "max_model_len as the KV cache holds, but at most 512; on CPUs, 64",
    )
    kv_cache_bytes: int = Field(256 * 2**20, ge=2**20, description="size of the KV cache on CPUs, in bytes")
    gpu_memory_utilization: float = Field(
        0.85, gt=0, le=1, description="fraction of a GPU's memory that the engine may use"
    )

    @model_validator(mode="after")
    def _dtype_without_placement(self) -> EngineConfig:
        return settle_dtype(self, on_gpus=False)


InFlight = Literal["none", "keep", "recompute"]
"""In-flight weight updates: what happens to running requests when an engine's weights change.

`keep` keeps their KV cache, `recompute` recomputes it with the new weights. With `none` no request may be running.
"""


SleepLevel = Literal[0, 1, 2]
"""What an engine does with its weights when other roles need its GPUs: 1 copies them to the host, 2 discards them, so that
they must be loaded again; with 0 it cannot free memory. It always discards the KV cache."""


class RolloutConfig(Section):
    """The vLLM engines that generate responses; `placement.ranks` is the number of engines, one actor each.

    CPUs, GPUs, and threads of the placement are those of one engine, with all of its processes.
    """

    placement: PlacementConfig = PlacementConfig()
    engine: EngineConfig = EngineConfig()
    max_new_tokens: int = Field(128, ge=1, description="maximum response length, in tokens")
    temperature: float = Field(1.0, gt=0, description="sampling temperature")
    top_p: float = Field(
        1.0, gt=0, le=1, description="nucleus sampling; below 1, samples no longer follow the policy's own distribution"
    )
    top_k: int = Field(
        0,
        ge=0,
        description="sample from the k most likely tokens; 0 samples from all. Above 0, samples no longer follow "
        "the policy's own distribution",
    )
    min_p: float = Field(
        0.0,
        ge=0,
        le=1,
        description="exclude tokens with less than this fraction of the most likely token's probability",
    )
    stop: tuple[str, ...] = Field(
        (), description="additional tokens that end a response, besides the model's end token"
    )

    @property
    def calls_at_once(self) -> int:
        """Number of concurrent calls that an engine's actor accepts."""
        return 1

    @model_validator(mode="after")
    def _dtype_by_placement(self) -> Self:
        return settle_dtype_of(self, "engine", self.placement.on_gpus)

    @model_validator(mode="after")
    def _room_for_a_prompt(self) -> RolloutConfig:
        if self.max_new_tokens >= self.engine.max_model_len:
            raise ValueError(
                f"rollout.max_new_tokens {self.max_new_tokens} leaves no room for a prompt in "
                f"rollout.engine.max_model_len {self.engine.max_model_len}: lower max_new_tokens or raise "
                "max_model_len"
            )
        return self

    @model_validator(mode="after")
    def _processes_have_their_own_gpus(self) -> RolloutConfig:
        gpus, size = self.placement.gpus_per_rank, self.engine.tensor_parallel_size
        if gpus and max(gpus, 1) != size:
            raise ValueError(
                f"rollout.placement.gpus_per_rank {gpus:g} does not fit rollout.engine.tensor_parallel_size {size}: "
                "an engine uses one GPU per process; set them to the same number"
            )
        return self

    @model_validator(mode="after")
    def _engines_fit_on_a_gpu(self) -> RolloutConfig:
        if 0 < self.placement.gpus_per_rank < self.engine.gpu_memory_utilization:
            raise ValueError(
                f"rollout.placement.gpus_per_rank {self.placement.gpus_per_rank:g} shares the engine's GPU with "
                "other processes, but rollout.engine.gpu_memory_utilization "
                f"{self.engine.gpu_memory_utilization:g} is more than that share: lower gpu_memory_utilization "
                "to at most gpus_per_rank"
            )
        return self


class OverlappedRolloutConfig(RolloutConfig):
    """Engines that can generate while other roles score and train."""

    chunk_rows: int | None = Field(
        None,
        ge=1,
        description="neighboring responses per chunk; reference, reward model, and reward functions score a chunk "
        "as soon as all its responses are finished, while the engines generate the others. null: a "
        "minibatch. For scoring roles that have CPUs or GPUs of their own",
    )
    ahead: int = Field(
        0,
        ge=0,
        description="async rollouts: how many steps the engines generate ahead of the update; this is the maximum "
        "staleness of their weights",
    )
    in_flight: InFlight = Field(
        "none",
        description="in-flight weight updates, for ahead of 1 or more: a publish does not wait for running "
        "responses, which continue with the new weights; keep or recompute their KV cache. Which "
        "weights generate a token then depends on timing: a run is reproducible only from its journal",
    )

    @property
    def calls_at_once(self) -> int:
        """See `RolloutConfig`. Above 1, weight updates, `probe`, and `ping` run during generation."""
        return 1 if self.in_flight == "none" else self.ahead + 4


class PublishConfig(Section):
    """How new weights are sent to the engines and checked there."""

    transport: Literal["object_store", "vllm_nccl"] = Field(
        "object_store",
        description="object_store: Ray's object store, for CPUs and GPUs; vllm_nccl: vLLM's NCCL weight transfer, "
        "for GPUs",
    )
    timeout_s: float = Field(120.0, gt=0, description="timeout of one publish, in seconds")
    probe_sequences: int = Field(
        4, ge=1, description="number of probe sequences on which engine and trainer are compared"
    )
    tolerance: float | None = Field(
        None,
        gt=0,
        description="largest allowed difference of a probe token's log-probability between engine and trainer. "
        "null: four times the difference at the first publish, at least 1e-4 in float32 and 0.05 in "
        "bfloat16; at the first publish, 0.002 in float32 and 0.5 in bfloat16",
    )
