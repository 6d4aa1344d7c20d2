"""Estimates the memory of a role's rank from shapes and settings alone; the estimates are checked against measurements.

    P parameters, N ranks, T tokens of a micro-batch, b bytes of an element in the forward pass, GiB = 2^30 bytes.

The sharding of weights, gradients, and optimizer state follows ZeRO (Rajbhandari et al. 2020, section 3); sizes of
gathered parameters and buckets are DeepSpeed's defaults. The memory of a process without a model, and the overhead of
activations in the C library's heap, were measured (docs/preflight.md describes how).
"""

from __future__ import annotations

from dataclasses import dataclass

from actors.config import EngineConfig, FrozenRoleConfig, LoraConfig, ZeroConfig
from actors.sizing.shape import Shape

GIB, MIB = 2**30, 2**20
BYTES = {"float32": 4, "bfloat16": 2}
ADAM_BYTES = 8  # two moments in fp32
MASTER_BYTES = 4  # the optimizer's fp32 copy of the weights
# During AdamW's step: the gradient in fp32 and, on CPUs, a temporary of its size. On GPUs the step is one fused kernel.
STEP_BYTES, GPU_STEP_BYTES = 8, 4

# DeepSpeed's defaults, in elements: parameters gathered at a time, a sub-group of an optimizer step, a gradient bucket.
LIVE_ELEMENTS, SUB_GROUP_ELEMENTS, BUCKET_ELEMENTS = 10**9, 10**9, 5 * 10**8
LOGIT_PIECES = 3 * 2**26 * 4  # actors/modeling/logprobs.py on GPUs: three fp32 pieces
LOGITS = {
    "cpu": 2**27,
    "cuda": 2**30,
}  # elements computed at a time (actors/modeling/packed_models.py): 256 MiB and 2 GiB in bfloat16

VLLM_BATCH_TOKENS = 8192  # vLLM's max_num_batched_tokens on GPUs; on CPUs see actors/inference/vllm_settings.py
SAMPLED_BYTES = 4 * 4  # per sequence and token of the vocabulary, while one token is sampled
CPU_CONCURRENCY = 64
MOST_CONCURRENCY = 512  # the largest batch for which vLLM captures CUDA graphs by default

# Measured on CPU: resident size of a Ray actor after its imports and first calls, without a model. It includes the
# pages of libraries, which the processes of a node share: 150 to 230 MiB, depending on the page cache.
SHARED_LIBRARIES = 200 * MIB
TRAINED_PROCESS, FROZEN_PROCESS, ENGINE_PROCESS = (SHARED_LIBRARIES + own * MIB for own in (470, 335, 570))
# The heap's memory relative to the activations kept in it: it does not release freed blocks between kept ones.
HEAP_FACTOR = 1.8
# Not measured, because no GPU was available: CUDA's context, library workspaces, and NCCL's buffers; the host process.
GPU_CONTEXT, GPU_PROCESS = 2 * GIB, 4 * GIB


@dataclass(frozen=True)
class Part:
    """One part of a memory estimate, in bytes, and its arithmetic."""

    name: str
    bytes: int
    why: str


@dataclass(frozen=True)
class Footprint:
    """Memory estimate of one rank. A rank first loads, then works; the peak is the larger of the two."""

    work: tuple[Part, ...]  # while working, on the device that computes
    load: tuple[Part, ...]  # while loading, on the device that computes
    host: tuple[Part, ...] = ()  # of a rank with a GPU, in its node's host memory
    first: tuple[Part, ...] = ()  # additionally of rank 0 with a GPU, in its node's host memory

    @property
    def peak(self) -> int:
        """Peak bytes on the device that computes."""
        return max(total(self.work), total(self.load))

    @property
    def moment(self) -> str:
        """Text for the report: when the peak occurs, and the memory at the other time."""
        work, load = total(self.work), total(self.load)
        if work >= load:
            return f"at work; {load / GIB:,.1f} GiB while loading"
        return f"while loading; {work / GIB:,.1f} GiB at work"

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts at the peak: while working or while loading."""
        return self.work if total(self.work) >= total(self.load) else self.load


def total(parts: tuple[Part, ...]) -> int:
    """Returns the total bytes of `parts`."""
    return sum(part.bytes for part in parts)


def lora_parameters(shape: Shape, lora: LoraConfig) -> int:
    """Returns the number of parameters of LoRA's matrices for the linear layers that `lora` targets."""
    return lora.rank * sum(shape.linear_widths(target) for target in lora.targets)


@dataclass(frozen=True)
class Work:
    """The work of a role's rank that determines its memory."""

    tokens: int  # largest micro-batch, in tokens
    scorer: bool = False  # whether the model has a scalar head and no logits
    publishes: bool = False  # whether its weights are sent through the object store
    whole: str = ""  # why every rank reads the full model even under ZeRO-3; empty if it is read into shards
    loads_as: str | None = None  # precision in which the full model is read, if not that of the forward pass
    trained_parameters: int | None = None  # number of parameters with a gradient, if not all
    exports: bool = True  # whether its weights are exported as a model at the end
    sleeps: bool = False  # whether other roles get its GPU memory while they compute


def read_into_shards(zero: ZeroConfig, work: Work) -> bool:
    """Returns whether ranks read the model into shards, so that no rank ever holds the full model."""
    return zero.stage == 3 and not work.whole


def trained(shape: Shape, zero: ZeroConfig, ranks: int, work: Work, gpu: bool) -> Footprint:
    """Returns the memory of one rank of a model trained under ZeRO with AdamW, as in `actors.zero.model.ZeroModel`."""
    count, b = shape.parameters(work.scorer), BYTES[zero.dtype]
    trained_parameters = count if work.trained_parameters is None else work.trained_parameters
    weights = ranks if zero.stage == 3 else 1
    gradients = ranks if zero.stage >= 2 else 1
    shards = ranks if zero.stage else 1
    stepped = min(trained_parameters // shards, SUB_GROUP_ELEMENTS) if zero.stage == 3 else trained_parameters // shards
    optimizer = (MASTER_BYTES + ADAM_BYTES) * trained_parameters // shards
    parts = [
        _process("trained", gpu),
        Part("weights", b * count // weights, f"{b} B x {count:,} / {weights}"),
        Part("gradients", b * trained_parameters // gradients, f"{b} B x {trained_parameters:,} / {gradients}"),
    ]
    if zero.stage == 3:
        live = min(count, LIVE_ELEMENTS)
        parts.append(Part("gathered", b * live, f"{b} B x min(P, 10^9) parameters in use at a time"))
    offloaded = gpu and zero.offload_optimizer
    state = Part(
        "optimizer", optimizer, f"(4 + 8) B x {trained_parameters:,} / {shards}: fp32 weights, AdamW's moments"
    )
    step = Part("step", STEP_BYTES * stepped, f"8 B x {stepped:,}: fp32 gradient and AdamW's temporary")
    if gpu and not offloaded:
        step = Part("step", GPU_STEP_BYTES * stepped, f"4 B x {stepped:,}: fp32 gradient")
    loading = _loading(shape, zero, ranks, work)
    saved = Part(
        "checkpoint", optimizer, f"12 B x {trained_parameters:,} / {shards}: its copy of the optimizer's state"
    )
    kept = _activations(shape, work, b, zero, gpu)
    copies = (
        4 if b == 2 and not gpu else 2
    )  # logits and their gradient; in bfloat16, CPUs reorder both for the multiplication
    logits = [] if work.scorer else [_logits(shape, work.tokens, copies * b, gpu)]
    if gpu:
        bucket = min(trained_parameters, BUCKET_ELEMENTS)
        parts += [] if offloaded else [state, step]
        buckets = 2 if ranks > 1 and zero.stage in (1, 2) else 1  # one is filled while the other is sent
        of = f"{buckets} x " if buckets > 1 else ""
        text = f"{of}{b} B x min({trained_parameters:,}, 5x10^8): gradients on their way"
        parts.append(Part("bucket", buckets * b * bucket, text))
        published = Part("published", 2 * b * count, f"2 x {b} B x P: gathered, and its copy in the object store")
        host = [Part("process", GPU_PROCESS, "reserve"), max(loading[0], saved, key=lambda part: part.bytes)]
        host += [published] if work.publishes else []
        host += [state, step] if offloaded else []
        if work.sleeps:
            asleep = b * count // weights + b * trained_parameters // gradients + (0 if offloaded else optimizer)
            host.append(Part("asleep", asleep, "weights, gradients, and optimizer while other roles compute"))
        export = Part("export", b * count, f"{b} B x {count:,}: gathered on rank 0 alone")
        first = (export,) if work.exports else ()
        return Footprint((*parts, kept, *logits), (_process("trained", gpu), *loading), tuple(host), first)
    parts.append(state)
    if work.publishes:
        parts.append(Part("published", b * count, f"{b} B x {count:,}: its copy in the object store"))
    # The heap keeps the activations' blocks during AdamW's step; memory of logits is returned to the system.
    learning = [*parts, kept, max([step, *logits], key=lambda part: part.bytes)]
    saving = [*parts, saved, Part("export", b * count, f"{b} B x {count:,}: gathered while the checkpoint is written")]
    work_parts = max(learning, saving, key=lambda each: total(tuple(each)))
    return Footprint(tuple(work_parts), (_process("trained", gpu), *loading))


def _loading(shape: Shape, zero: ZeroConfig, ranks: int, work: Work) -> tuple[Part, ...]:
    """Returns the memory of the model while a rank reads it: one parameter or the full model, and its shards."""
    count, b = shape.parameters(work.scorer), BYTES[zero.dtype]
    shards = Part("weights", b * count // ranks, f"{b} B x {count:,} / {ranks}: shards as they are read")
    if read_into_shards(zero, work):
        largest = shape.largest_parameter
        return Part("parameter", (4 + b) * largest, f"(4 + {b}) B x {largest:,}: the largest, read and sent"), shards
    size = BYTES[work.loads_as or zero.dtype]
    reason = work.whole or f"stage {zero.stage} shards no weights"
    whole = Part("whole model", size * count, f"{size} B x {count:,}: every rank reads it, since {reason}")
    return (whole, shards) if zero.stage == 3 else (whole,)


def frozen(shape: Shape, config: FrozenRoleConfig, work: Work, gpu: bool) -> Footprint:
    """Returns the memory of one rank of a frozen model: reference or reward model. Every rank holds the full model."""
    count, b = shape.parameters(work.scorer), BYTES[config.dtype]
    weights = Part("weights", b * count, f"{b} B x {count:,}")
    size = b * work.tokens * shape.layer_activations
    layer = Part("activations", size, f"{b} B x {work.tokens:,} x {shape.layer_activations:,}, one layer at a time")
    parts = [_process("frozen", gpu), weights, layer]
    if not work.scorer:
        parts.append(_logits(shape, work.tokens, b, gpu))
    if gpu:
        return Footprint(tuple(parts), (parts[0], weights), (Part("process", GPU_PROCESS, "reserve"), weights))
    read = Part("as read", 4 * count if b != 4 else 0, "4 B x P while it is converted, if its file has fp32")
    return Footprint(tuple(parts), (parts[0], weights, read))


def engine(shape: Shape, config: EngineConfig, tokens: int, gpu_bytes: int | None, through_store: bool) -> Footprint:
    """Returns the memory of one vLLM engine: on CPUs of all its processes, on GPUs of one process and its GPU.

    On a GPU, an engine takes the same share of the memory for any model; what the model leaves of it is the KV cache.

    Args:
        shape: shape of the model.
        config: the engine's settings.
        tokens: number of tokens of one forward pass.
        gpu_bytes: memory of the GPU; None on CPUs.
        through_store: whether weights are sent through the object store.
    """
    count, b, processes = shape.parameters(), BYTES[config.dtype], config.tensor_parallel_size
    weights = Part("weights", b * count, f"{b} B x {count:,}")
    size = b * tokens * shape.layer_activations
    layer = Part("activations", size, f"{b} B x {tokens:,} tokens read at a time x {shape.layer_activations:,}")
    sequences = concurrency(shape, config, gpu_bytes)
    sampled = Part("logits", SAMPLED_BYTES * sequences * shape.vocab, f"4 x 4 B x {sequences} x {shape.vocab:,}")
    if gpu_bytes is not None:
        if processes > 1:
            weights = Part("weights", b * count // processes, f"{b} B x {count:,} / {processes} processes")
        share = int(config.gpu_memory_utilization * gpu_bytes)
        left = max(0, share - weights.bytes - layer.bytes - sampled.bytes)
        room = Part("KV cache", left, f"what is left of {config.gpu_memory_utilization:g} of the GPU")
        host = [Part("process", processes * GPU_PROCESS, "reserve"), Part("weights", b * count, "while they are read")]
        if through_store:
            host.append(Part("published", b * count, f"{b} B x P in the node's object store"))
        return Footprint((weights, layer, sampled, room), (weights,), tuple(host))
    parts = [
        _engine_processes(processes),
        weights,
        Part("KV cache", config.kv_cache_bytes, "kv_cache_bytes"),
        layer,
        sampled,
    ]
    # oneDNN multiplies with packed copies. They replace the originals of a layer's matrices, but vLLM keeps the
    # originals of the embedding and of the output head (even a tied one) as well.
    matrix = b * shape.vocab * shape.hidden
    of_one = f"{b} B x {shape.vocab:,} x {shape.hidden:,}"
    parts.append(Part("packed", 2 * matrix, f"2 x {of_one}: oneDNN's copies of embedding and head"))
    if processes > 1:
        copies, largest = processes * 4, shape.largest_parameter
        parts.append(Part("messages", copies * largest, f"{processes} x 4 B x {largest:,}: sent to every process"))
    if through_store:  # vLLM copies the weights from the object store layer by layer
        parts.append(Part("published", 4 * count, "4 B x P mapped from the object store"))
        new = 2 if shape.tied else 3
        parts.append(Part("replaced", new * matrix, f"{new} x {of_one}: new embedding and head until they are packed"))
    return Footprint(tuple(parts), (parts[0], weights))


def concurrency(shape: Shape, config: EngineConfig, gpu_bytes: int | None) -> int:
    """Returns the number of sequences that an engine decodes concurrently.

    If the settings do not say it, an engine on a GPU decodes as many sequences of full length as its KV cache holds, so
    that vLLM never has to stop one and compute it again later.

    Args:
        shape: shape of the model.
        config: the engine's settings.
        gpu_bytes: memory of the GPU; None on CPUs, 0 if it is not known.
    """
    if config.max_concurrent is not None:
        return config.max_concurrent
    if not gpu_bytes:
        return CPU_CONCURRENCY
    b = BYTES[config.dtype]
    fixed = b * (shape.parameters() // config.tensor_parallel_size + VLLM_BATCH_TOKENS * shape.layer_activations)
    left = int(config.gpu_memory_utilization * gpu_bytes) - fixed
    one = kv_bytes(shape, config, config.max_model_len) + SAMPLED_BYTES * shape.vocab
    return max(1, min(MOST_CONCURRENCY, left // one))


def indivisible(shape: Shape, processes: int) -> str | None:
    """Returns why vLLM cannot divide a model between an engine's processes ("has ..."); None if it can.

    Every process gets as many attention heads, and as many key and value heads or the same one as others.
    """
    if shape.heads % processes:
        return f"has {shape.heads} attention heads, which {processes} processes cannot divide"
    fewer, more = sorted((shape.kv_heads, processes))
    if more % fewer:
        return f"has {shape.kv_heads} key and value heads, which {processes} processes cannot divide"
    return None


def _engine_processes(count: int) -> Part:
    """Returns the memory of an engine's processes on CPUs: one, or the scheduler's and `count` others."""
    each = "imports and first calls, measured"
    if count == 1:
        return Part("process", ENGINE_PROCESS, each)
    return Part("processes", (1 + count) * ENGINE_PROCESS, f"(1 + {count}) x {ENGINE_PROCESS:,} B: {each}")


def kv_bytes(shape: Shape, config: EngineConfig, tokens: int) -> int:
    """Returns the bytes that `tokens` tokens take in the KV cache of one of the engine's processes."""
    of_one = -(-shape.kv_heads // config.tensor_parallel_size)  # heads; every process has at least one
    return BYTES[config.dtype] * shape.kv_elements * tokens * of_one // shape.kv_heads


def _process(kind: str, gpu: bool) -> Part:
    if gpu:
        return Part("process", GPU_CONTEXT, "reserve: CUDA's context, workspaces, NCCL")
    size = TRAINED_PROCESS if kind == "trained" else FROZEN_PROCESS
    return Part("process", size, "imports and first calls, measured")


def _activations(shape: Shape, work: Work, b: int, zero: ZeroConfig, gpu: bool) -> Part:
    """Returns the memory of the activations that are kept for the backward pass.

    These are the activations of all layers plus those of one layer or, with gradient checkpointing, the inputs of all
    layers plus the activations of one layer.
    """
    a = shape.fused_activations if zero.liger else shape.layer_activations
    if zero.gradient_checkpointing:
        kept, which = shape.layers * shape.hidden + a, f"({shape.layers} x {shape.hidden:,} + {a:,})"
    else:
        kept, which = (shape.layers + 1) * a, f"({shape.layers} + 1) x {a:,}"
    factor = 1.0 if gpu else HEAP_FACTOR
    more = "" if gpu else f" x {HEAP_FACTOR}"
    return Part("activations", int(factor * b * work.tokens * kept), f"{b} B x {work.tokens:,} x {which}{more}")


def _logits(shape: Shape, tokens: int, b: int, gpu: bool) -> Part:
    wanted, most = tokens * shape.vocab, LOGITS["cuda" if gpu else "cpu"]
    size = b * min(wanted, most) + (LOGIT_PIECES if gpu else 0)
    elements = (
        f"{tokens:,} x {shape.vocab:,}" if wanted <= most else f"{most:,}, of {tokens:,} x {shape.vocab:,} at a time"
    )
    return Part("logits", size, f"{b} B x {elements}" + (" + pieces" if gpu else ""))
