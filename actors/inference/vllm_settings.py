"""vLLM's environment variables and arguments for an engine, in this process or behind the endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from actors.config import EngineConfig
from actors.model_folder.config_json import read_shape
from actors.sizing.memory import CPU_CONCURRENCY, concurrency

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # scheduler in this process: 20 times as fast on two cores
    "VLLM_LOGGING_LEVEL": "ERROR",  # otherwise every reload warns of layers that have no weights
}
CPU_ENVIRONMENT = {
    "TORCHDYNAMO_DISABLE": "1",  # vLLM compiles two small functions even with enforce_eager, up to 20 s
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # OMP_NUM_THREADS applies; binding would make roles compete for cores
    # oneDNN compiles and caches a matrix multiplication for every number of rows. With its default capacity of 1,024,
    # an engine's memory grew by 1.1 GB.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
}


def engine_arguments(config: EngineConfig, on_gpus: bool) -> dict[str, Any]:
    """Returns vLLM's arguments for an engine with settings `config`, in this process or behind the endpoint.

    Raises ValueError if `config` has no number for `max_concurrent`; see `with_concurrency`.
    """
    if config.max_concurrent is None:
        raise ValueError("max_concurrent is not settled: call with_concurrency first")
    arguments: dict[str, Any] = {
        "dtype": config.dtype,
        "max_model_len": config.max_model_len,
        "max_num_seqs": config.max_concurrent,
    }
    if on_gpus:
        return {**arguments, "gpu_memory_utilization": config.gpu_memory_utilization}
    return {
        **arguments,
        "enforce_eager": True,
        "kv_cache_memory_bytes": config.kv_cache_bytes // config.tensor_parallel_size,  # of one process
        # Chunked prefill rewinds a prompt's seeded generator, which PyTorch cannot do on a CPU.
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(config.max_model_len, 4096),
    }


def with_concurrency(config: EngineConfig, folder: Path) -> EngineConfig:
    """Returns the settings with a number for `max_concurrent`, for the model in `folder` and this process's device."""
    if config.max_concurrent is not None:
        return config
    sequences = CPU_CONCURRENCY
    if torch.cuda.is_available():
        sequences = concurrency(read_shape(folder), config, torch.cuda.mem_get_info()[1])
    return config.model_copy(update={"max_concurrent": sequences})
