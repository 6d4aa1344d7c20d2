"""Resources that a stage needs, from its settings and its models' config.json: processes, memory, disk, and batches.

`trainers.preflight.verdict` refuses what does not fit; `python -m cluster.preflight` prints all findings. Importing this
module does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from actors.config import (
    EngineConfig,
    FrozenRoleConfig,
    LoraConfig,
    PlacementConfig,
    RolloutConfig,
    TrainedRoleConfig,
    ZeroConfig,
)
from actors.groups.colocation import PlacementGroupSpec
from actors.model_folder.config_json import read_shape
from actors.model_folder.layout import reads_whole
from actors.model_folder.source import config_dir, tokenizer_dir
from actors.sizing.memory import (
    BYTES,
    FROZEN_PROCESS,
    GPU_CONTEXT,
    SHARED_LIBRARIES,
    VLLM_BATCH_TOKENS,
    Footprint,
    Part,
    Work,
    concurrency,
    engine,
    frozen,
    indivisible,
    kv_bytes,
    lora_parameters,
    total,
    trained,
)
from actors.sizing.shape import Shape, new_shape, vocabulary
from cluster.preflight.capacity import Capacity
from cluster.preflight.check import check
from cluster.preflight.needs import Disk, Finding, Need, Place, Plan, gib
from configs.errors import ConfigError
from storage.paths import runs_root
from trainers.config.rejection import RejectionConfig
from trainers.config.rlhf import PPOConfig
from trainers.config.supervised import (
    DpoConfig,
    PretrainConfig,
    RewardConfig,
    SftConfig,
    StageConfig,
    SupervisedConfig,
    TrainingConfig,
)

ShapeOf = Callable[[str], Shape]
"""Returns the shape of a model that a recipe names by folder or Hub id."""

CHECKPOINT_BYTES = 12  # per parameter, in addition to its weight: fp32 master and AdamW's moments


def findings(config: StageConfig, capacity: Capacity, shape_of: ShapeOf) -> list[Finding]:
    """Returns all findings for `config` on a cluster of `capacity`.

    A model whose shape cannot be determined is a finding of level `refused`.
    """
    return check(plan(config, shape_of, capacity.gpu_bytes), capacity)


def shape_in_folder(folder: str) -> Shape:
    """Returns the shape of the model `folder`, a path or a Hub id, according to its config.json."""
    return read_shape(config_dir(folder))


def plan(config: StageConfig, shape_of: ShapeOf, gpu_bytes: int | None) -> Plan:
    """Returns everything that the stage needs.

    Args:
        config: the stage's settings.
        shape_of: returns the shape of a model.
        gpu_bytes: memory of one GPU in bytes, of which vLLM uses a fraction; None if unknown.
    """
    planner = _Planner(shape_of, gpu_bytes)
    if isinstance(config, PPOConfig):
        return planner.ppo(config)
    if isinstance(config, RejectionConfig):
        return planner.rejection(config)
    assert isinstance(config, SupervisedConfig)
    return planner.supervised(config)


class _Planner:
    """Collects the needs, the disk space, and the findings of one stage; call one of its public methods, once."""

    def __init__(self, shape_of: ShapeOf, gpu_bytes: int | None) -> None:
        self._shape_of, self._gpu_bytes = shape_of, gpu_bytes
        self._findings: list[Finding] = []
        self._disk: list[tuple[int, str]] = []

    def ppo(self, config: PPOConfig) -> Plan:
        longest = config.prompts.max_tokens + config.rollout.max_new_tokens
        rows = config.rows_per_step // config.algorithm.minibatches
        through_store = config.publish.transport == "object_store"
        self._fact("batch", f"{config.rows_per_step} samples per step, {config.algorithm.minibatches} x {rows} trained")
        needs = []
        for role, settings in config.roles.items():
            if isinstance(settings, TrainedRoleConfig):
                tokens = self._micro_batch(role, settings, rows, longest)
                scorer = role == "critic"
                whole = self._whole(role, settings.model, settings.zero, scorer)
                trained_parameters = self._trained_parameters(role, settings.model, settings.lora, scorer)
                work = Work(
                    *(tokens, scorer, role == "policy" and through_store, whole),
                    trained_parameters=trained_parameters,
                    exports=role == "policy",
                    sleeps=config.sleep and any(role in spec.sharing() for spec in config.placement_groups),
                )
                needs.append(self._trained(role, settings.model, settings, work))
                dtype, keep = settings.zero.dtype, config.keep_checkpoints
                self._checkpoints(role, settings.model, dtype, keep, work.scorer, trained_parameters)
            elif isinstance(settings, FrozenRoleConfig):
                tokens = self._micro_batch(role, settings, rows, longest)
                needs.append(self._frozen(role, settings, Work(tokens, role == "reward")))
            elif role == "rollout":
                engines = -(-config.rows_per_step // settings.placement.ranks)
                needs.append(self._engine(role, config.policy.model, settings, engines * longest, through_store))
            else:
                needs.append(_need(role, settings.placement, None))
        self._journal(config.steps * config.rows_per_step, config.prompts.max_tokens, config.rollout.max_new_tokens)
        return self._plan(config.name, {"ppo": _places(config.placement_groups, needs, config.sleep)})

    def rejection(self, config: RejectionConfig) -> Plan:
        longest = config.prompts.max_tokens + config.rollout.max_new_tokens
        responses = config.prompts_per_step * config.samples_per_prompt
        per_engine = -(-responses // config.rollout.placement.ranks)
        sampling = [self._engine("rollout", config.model, config.rollout, per_engine * longest, through_store=False)]
        if config.reward is not None:
            tokens = self._micro_batch("reward", config.reward, responses, longest)
            sampling.append(self._frozen("reward", config.reward, Work(tokens, scorer=True)))
        if "reward_function" in config.roles:
            sampling.append(_need("reward_function", config.reward_function.placement, None))
        tuning = self._supervised("sft", config.model, config.sft, config.sft.data.max_tokens)
        if config.prompts_per_round:
            journalled = config.rounds * config.prompts_per_round * config.samples_per_prompt
            self._journal(journalled, config.prompts.max_tokens, config.rollout.max_new_tokens)
        groups = {
            "sampling": _places(config.placement_groups, sampling),
            "fine-tuning": _places([PlacementGroupSpec({"sft": config.sft.placement})], [tuning]),
        }
        return self._plan(config.name, groups)

    def supervised(self, config: SupervisedConfig) -> Plan:
        if isinstance(config, PretrainConfig) and config.architecture is not None:
            architecture, tokenizer = config.architecture, config.tokenizer or ""
            self._shape_of = lambda _: new_shape(architecture, vocabulary(tokenizer_dir(tokenizer)))
        row = _row(config)
        need = self._supervised("trainer", getattr(config, "model", None) or "", config, row)
        return self._plan(
            config.name, {config.recipe_key: _places([PlacementGroupSpec({"trainer": config.placement})], [need])}
        )

    def _supervised(self, role: str, model: str, config: TrainingConfig, row: int) -> Need:
        scorer = isinstance(config, RewardConfig)
        rows = config.batch_size // config.placement.ranks
        tokens = self._micro_batch(role, config, config.batch_size, row)
        self._fact("batch", f"{config.batch_size} samples per step, {rows} per rank")
        trained_parameters = self._trained_parameters(role, model, config.lora, scorer)
        exports = 1 if config.export == "last" else 2
        self._checkpoints(role, model, config.zero.dtype, config.keep_checkpoints, scorer, trained_parameters, exports)
        new = isinstance(config, PretrainConfig) and config.architecture is not None
        if new:
            work = Work(tokens, scorer, False, "its weights are initialized at random", "float32", trained_parameters)
        else:
            work = Work(
                tokens,
                scorer,
                False,
                self._whole(role, model, config.zero, scorer),
                trained_parameters=trained_parameters,
            )
        return self._trained(role, model, config, work)

    def _trained_parameters(self, role: str, model: str, lora: LoraConfig | None, scorer: bool) -> int | None:
        """Returns the number of trained parameters with LoRA; None if all are trained or the shape is unknown."""
        shape = self._shape(role, model)
        if lora is None or shape is None:
            return None
        return lora_parameters(shape, lora) + (shape.hidden if scorer else 0)

    def _whole(self, role: str, model: str, zero: ZeroConfig, scorer: bool) -> str:
        """Returns why every rank reads the whole model; empty if ranks read it into shards.

        The result is also empty if this is unknown, because the model's files are not on this machine yet.
        """
        if zero.stage < 3:
            return ""
        try:
            whole = reads_whole(model, scorer)
        except ConfigError as error:
            self._refuse_input(role, error)
            return ""
        if whole:
            self._findings.append(Finding("fits", role, f"every rank reads the whole model, because {whole}"))
        else:
            there = (
                " if its files contain each parameter as one tensor: they are not on this machine yet"
                if whole is None
                else ""
            )
            self._findings.append(Finding("fits", role, f"reads the model into shards, one parameter at a time{there}"))
        return whole or ""

    def _micro_batch(self, role: str, settings: Any, rows: int, longest: int) -> int:
        """Returns the maximum number of tokens of a micro-batch.

        It is the limit, or the length of the longest row if that is larger, but at most all rows of a rank.
        """
        ranks, allowed = settings.placement.ranks, settings.micro_batch_tokens
        tokens = min(max(allowed, longest), -(-rows // ranks) * longest)
        self._fact(
            "batch",
            f"{role}: up to {-(-rows // ranks)} samples of {longest:,} tokens per rank, {tokens:,} tokens at a time",
        )
        return int(tokens)

    def _trained(self, role: str, model: str, settings: Any, work: Work) -> Need:
        placement, shape = settings.placement, self._shape(role, model)
        gpu = placement.gpus_per_rank > 0
        return _need(
            role, placement, None if shape is None else trained(shape, settings.zero, placement.ranks, work, gpu)
        )

    def _frozen(self, role: str, settings: FrozenRoleConfig, work: Work) -> Need:
        shape = self._shape(role, settings.model)
        gpu = settings.placement.gpus_per_rank > 0
        return _need(role, settings.placement, None if shape is None else frozen(shape, settings, work, gpu))

    def _engine(self, role: str, model: str, settings: RolloutConfig, asked: int, through_store: bool) -> Need:
        shape, config = self._shape(role, model), settings.engine
        if shape is None:
            return _need(role, settings.placement, None)
        gpu = settings.placement.gpus_per_rank > 0
        most = VLLM_BATCH_TOKENS if gpu else max(config.max_model_len, 4096)
        device = (self._gpu_bytes or 0) if gpu else None
        footprint = engine(shape, config, min(asked, most), device, through_store)
        if config.max_model_len > shape.context:
            text = f"engine.max_model_len {config.max_model_len} exceeds the {shape.context} tokens of {model}"
            self._findings.append(Finding("refused", role, text))
        if problem := indivisible(shape, config.tensor_parallel_size):
            text = f"engine.tensor_parallel_size {config.tensor_parallel_size}: {model} {problem}"
            self._findings.append(Finding("refused", role, text))
        if not gpu or self._gpu_bytes:
            one = kv_bytes(shape, config, config.max_model_len)
            shares, sequences = 1 if gpu else config.tensor_parallel_size, concurrency(shape, config, device)
            self._findings.append(_cache(role, footprint, one, config, shares, sequences))
        return _need(role, settings.placement, footprint)

    def _shape(self, role: str, model: str) -> Shape | None:
        try:
            return self._shape_of(model)
        except ConfigError as error:
            self._refuse_input(role, error)
            return None

    def _refuse_input(self, role: str, error: ConfigError) -> None:
        finding = Finding("refused", "inputs", f"{role}: {error}")
        self._findings += [] if finding in self._findings else [finding]

    def _fact(self, subject: str, text: str) -> None:
        self._findings.append(Finding("fits", subject, text))

    def _checkpoints(
        self,
        role: str,
        model: str,
        dtype: str,
        keep: int,
        scorer: bool,
        trained_parameters: int | None = None,
        exports: int = 1,
    ) -> None:
        shape = self._shape(role, model)
        if shape is not None:
            count, b = shape.parameters(scorer), BYTES[dtype]
            each = b * count + CHECKPOINT_BYTES * (count if trained_parameters is None else trained_parameters)
            self._disk.append((each * (keep + 1), f"{keep + 1} checkpoints of {role}, {gib(each)} each"))
            if role != "critic":
                times = f"{exports} x " if exports > 1 else ""
                self._disk.append((exports * b * count, f"its model, {times}{gib(b * count)}"))

    def _journal(self, rows: int, prompt: int, response: int) -> None:
        """Adds the journal's disk space, for uncompressed rows of full length.

        Prompts and responses take an int32 per token, and responses also an fp32 log-probability per token.
        """
        size = rows * (4 * prompt + 8 * response)
        self._disk.append((size, f"journal, at most {gib(size)}"))

    def _plan(self, name: str, groups: Mapping[str, list[Place]]) -> Plan:
        disk = Disk(
            str(runs_root() / name), sum(size for size, _ in self._disk), ", ".join(why for _, why in self._disk)
        )
        return Plan(groups, (disk,), tuple(self._findings))


def _cache(role: str, footprint: Footprint, one: int, config: EngineConfig, shares: int, sequences: int) -> Finding:
    """Checks that the KV cache holds one sequence of `max_model_len`, which vLLM requires to start.

    Args:
        role: the engine's role.
        footprint: the engine's memory.
        one: bytes of that sequence in one process.
        config: the engine's settings.
        shares: number of processes that divide the footprint's KV cache.
        sequences: number of sequences that are decoded concurrently.
    """
    room = next(part.bytes for part in footprint.work if part.name == "KV cache") // shares
    if room == 0:
        return Finding(
            "refused",
            role,
            f"an engine's weights and activations need {gib(footprint.peak)}, more than "
            f"engine.gpu_memory_utilization {config.gpu_memory_utilization:g} of a GPU",
        )
    text = f"a KV cache of {gib(room)} holds {room / one:.1f} sequences of {config.max_model_len:,} tokens"
    if room < one:
        return Finding("refused", role, f"{text}, and vLLM requires room for at least one sequence, {gib(one)}")
    return Finding("fits", role, f"{text}; up to {sequences} run concurrently")


def _row(config: SupervisedConfig) -> int:
    """Returns the maximum number of tokens of a row, which is a block, a chat, or a pair."""
    if isinstance(config, PretrainConfig):
        return config.data.block_tokens
    if isinstance(config, RewardConfig | DpoConfig):
        return 2 * config.data.max_tokens
    assert isinstance(config, SftConfig)
    return config.data.max_tokens


def _places(
    placement_groups: Sequence[PlacementGroupSpec], needs: Sequence[Need], in_turn: bool = False
) -> list[Place]:
    """Groups the needs by the placement groups of their roles."""
    by_role = {need.role: need for need in needs}
    return [
        Place(spec.name, spec.bundles(), [by_role[role] for role in spec.roles], in_turn and bool(spec.sharing()))
        for spec in placement_groups
    ]


def _need(role: str, placement: PlacementConfig, footprint: Footprint | None) -> Need:
    ranks, shared = placement.ranks, SHARED_LIBRARIES
    if footprint is None:
        return Need(role, ranks, FROZEN_PROCESS, shared)
    rows, moment = _rows(footprint.parts), footprint.moment
    if placement.gpus_per_rank:
        host, first = footprint.host, _rows(footprint.first)
        return Need(role, ranks, total(host), shared, footprint.peak, GPU_CONTEXT, _rows(host), rows, first, moment)
    return Need(role, ranks, footprint.peak, shared, host=rows, moment=moment)


def _rows(parts: tuple[Part, ...]) -> tuple[tuple[str, int, str], ...]:
    return tuple((part.name, part.bytes, part.why) for part in parts)
