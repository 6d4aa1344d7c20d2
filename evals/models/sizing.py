"""Sizes an evaluation's engine (context, precision, KV cache), and checks its memory before it is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from actors.config import EngineConfig
from actors.model_folder.config_json import read_shape
from actors.model_folder.folders import ModelFolder
from actors.precision import Dtype, resolve_dtype
from actors.sizing.memory import BYTES, GIB, engine, indivisible, kv_bytes
from cluster.memory import available_bytes
from configs.errors import ConfigError
from evals.models.device import gpu_bytes

DEFAULT_CONTEXT = 4096
SEQUENCES = 128  # decoded concurrently on CPUs; more would only fill the KV cache, since these saturate two cores
CACHE_TOKENS, CACHE_BYTES = 32_768, 2**30  # limits of the KV cache on CPUs, unless one sequence needs more
GPU_SHARE = 0.6  # leaves room for the reward model on the same GPU
SCORED_BYTES = 18  # per scored token and vocabulary entry: logits, log-probabilities, vLLM's copies; measured on a CPU
ERROR = 0.15  # largest relative error of the estimate: an engine that exceeds the memory by less is tried


@dataclass(frozen=True)
class Sizing:
    """The user's size settings of the engine; None and `auto` are resolved for each model and device."""

    max_model_len: int | None = None
    dtype: Dtype = "auto"
    scores_texts: bool = False
    """Whether texts as long as the context are scored, as in perplexity: vLLM computes all their logits at once."""
    tensor_parallel_size: int = 1
    """Number of the engine's processes."""

    def context(self, folder: ModelFolder) -> int:
        """Returns the longest sequence that the engine accepts, in tokens.

        Raises:
            ConfigError: `max_model_len` exceeds the model's context.
        """
        if self.max_model_len is None:
            return min(folder.context, DEFAULT_CONTEXT)
        if self.max_model_len > folder.context:
            raise ConfigError(
                f"--max-model-len {self.max_model_len}: exceeds the {folder.context} tokens of {folder.path}; lower it"
            )
        return self.max_model_len

    def engine_config(self, folder: ModelFolder, gpu: bool) -> EngineConfig:
        """Returns the engine's settings for a model, on a GPU or CPUs; the KV cache holds at least one sequence.

        Raises:
            ConfigError: `max_model_len` exceeds the model's context, or the model's size cannot be estimated.
        """
        context = self.context(folder)
        dtype = resolve_dtype(self.dtype, gpu)
        one = BYTES[dtype] * read_shape(folder.path).kv_elements
        tokens = max(context, min(CACHE_TOKENS, CACHE_BYTES // one))
        return EngineConfig(
            dtype=dtype,
            tensor_parallel_size=self.tensor_parallel_size,
            max_model_len=context,
            max_concurrent=None if gpu else SEQUENCES,
            kv_cache_bytes=max(one * tokens, 2**20),
            gpu_memory_utilization=GPU_SHARE,
        )


def sized(folder: ModelFolder, sizing: Sizing) -> EngineConfig:
    """Returns the engine's settings for a model on this machine, on its GPU if there is one; imports torch.

    Raises:
        ConfigError: `max_model_len` exceeds the model's context, or the engine is estimated not to fit in memory.
    """
    on_gpu = gpu_bytes()
    config = sizing.engine_config(folder, on_gpu is not None)
    require_fit(folder, config, on_gpu, sizing.scores_texts)
    return config


def require_fit(folder: ModelFolder, config: EngineConfig, gpu_bytes: int | None, scores_texts: bool) -> None:
    """Rejects a model whose engine is estimated not to fit in memory.

    Args:
        folder: the model.
        config: the engine's settings.
        gpu_bytes: memory of the GPU, in bytes; None if the engine runs on CPUs.
        scores_texts: see `Sizing`.

    Raises:
        ConfigError: the model cannot be divided between the engine's processes, or would not fit; the message states
            the estimate, the available memory, and what to change.
    """
    shape = read_shape(folder.path)
    if problem := indivisible(shape, config.tensor_parallel_size):
        raise ConfigError(f"--tensor-parallel-size {config.tensor_parallel_size}: {folder.path} {problem}")
    footprint = engine(shape, config, max(config.max_model_len, 4096), gpu_bytes, through_store=False)
    if gpu_bytes is not None:
        room = next(part.bytes for part in footprint.work if part.name == "KV cache")
        if room < kv_bytes(shape, config, config.max_model_len):
            raise ConfigError(
                f"{folder.path}: weights and activations leave {room / GIB:.1f} GiB of {GPU_SHARE:g} of the GPU for the KV "
                f"cache, too little for {config.max_model_len} tokens; lower --max-model-len or use a larger GPU"
            )
        return
    scored = SCORED_BYTES * config.max_model_len * shape.vocab if scores_texts else 0
    need, there = footprint.peak + scored, available_bytes()
    if need > (1 + ERROR) * there:
        raise ConfigError(
            f"{folder.path}: an engine of {config.max_model_len} tokens in {config.dtype} needs about {need / GIB:.1f} GiB "
            f"({scored / GIB:.1f} of them for the logits of long texts), and {there / GIB:.1f} GiB are available; lower "
            "--max-model-len, give --dtype bfloat16, or use a larger machine"
        )
