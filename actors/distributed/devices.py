"""A process's device (the accelerator that Ray assigned to it, or the CPU) and its torch.distributed world."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch

from actors.distributed.host_group import open_host_group
from actors.distributed.store import open_store
from cluster.memory import peak_resident_bytes

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def device() -> torch.device:
    """Returns the process's CUDA device if one is visible, otherwise the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def peak_bytes() -> int:
    """Returns this process's peak memory in bytes: GPU memory if it computes on a GPU, otherwise resident memory."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_resident_bytes()


def to_host(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies `tensors`, of any shape, to the CPU.

    From a GPU, copies asynchronously into pinned memory, with one wait (speed: docs/gpu.md).
    """
    copies = {}
    for name, tensor in tensors.items():
        target = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        copies[name] = target.copy_(tensor.detach(), non_blocking=tensor.is_cuda)
    if torch.cuda.is_available():
        torch.cuda.current_stream().synchronize()
    return copies


def choose_accelerator() -> None:
    """Sets DeepSpeed's accelerator, which it would otherwise guess with a warning. Call before importing DeepSpeed."""
    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"


def prepare_process(threads: int) -> None:
    """Sets the thread count and the accelerator. Call before DeepSpeed is imported."""
    torch.set_num_threads(threads)
    choose_accelerator()


def join_world(rank: int, world_size: int, master_address: str, master_port: int, timeout_s: float) -> None:
    """Joins the role's torch.distributed world: NCCL on GPUs, gloo on CPUs.

    Also opens the host group (gloo) now, because opening it later would block on a rank that is busy with host work.

    Args:
        rank: this process's rank.
        world_size: number of ranks.
        master_address: address of rank 0, which serves the rendezvous store.
        master_port: port of the rendezvous store.
        timeout_s: time limit of joining and of each collective, in seconds.
    """
    from datetime import timedelta

    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK="0",  # Ray shows each rank its own devices only
        WORLD_SIZE=str(world_size),
        MASTER_ADDR=master_address,
        MASTER_PORT=str(master_port),
    )
    backend, timeout = "nccl" if torch.cuda.is_available() else "gloo", timedelta(seconds=timeout_s)
    store = open_store(rank, world_size, master_address, master_port, timeout)
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
    open_host_group()
