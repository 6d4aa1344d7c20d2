"""Engines of several processes: each has a part of every weight matrix, and they compute every layer together."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from threading import Event, Thread
from typing import Any

import torch

from actors.config import EngineConfig

logger = logging.getLogger(__name__)


def executor_arguments(config: EngineConfig) -> dict[str, Any]:
    """Returns vLLM's arguments for an engine in this process, or in `tensor_parallel_size` processes that it starts.

    They are vLLM's own processes rather than Ray actors, because they then run on the machine and the GPUs of the
    engine's actor, and exchange messages through shared memory.
    """
    size = config.tensor_parallel_size
    if size == 1:
        return {"distributed_executor_backend": "uni"}
    return {"distributed_executor_backend": "mp", "tensor_parallel_size": size}


def environment(config: EngineConfig) -> Mapping[str, str]:
    """Returns the variables of the processes of an engine, which divide this process's threads."""
    size = config.tensor_parallel_size
    if size == 1:
        return {}
    return {
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a forked process would inherit locks that an actor's threads hold
        "OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // size)),
    }


def exit_with_any_process(llm: Any) -> Event:
    """Makes this process exit when a process of the engine dies, until the returned event is set.

    An engine that lacks a process can compute nothing. To the caller of its actor, it is then dead as a whole, as an
    engine in one process would be.
    """
    closing = Event()
    workers = getattr(llm.llm_engine.engine_core.engine_core.model_executor, "workers", [])
    if workers:
        processes = [worker.proc for worker in workers]
        Thread(target=_exit_with, args=(processes, closing), daemon=True, name="exit with any process").start()
    return closing


def _exit_with(processes: Sequence[BaseProcess], closing: Event) -> None:
    died = wait([process.sentinel for process in processes])
    if closing.is_set():
        return
    names = ", ".join(process.name for process in processes if process.sentinel in died)
    logger.error("the engine's process %s died: the engine exits", names)
    for process in processes:
        process.kill()  # in a collective operation it would wait for the dead one for ever
    os._exit(1)
