"""A function of a test file in the ranks of a torch.distributed world, each a process of its own."""

from __future__ import annotations

import gc
import multiprocessing
import os
import runpy
import socket
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import torch

PATIENCE_S = 240.0


def on_ranks(ranks: int, file: str, function: str, folder: Path, *arguments: object) -> Any:
    """What `function(rank, world size, *arguments as text)` of `file` returns on rank 0."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    result = folder / f"{function}-{ranks}.pt"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    texts = tuple(map(str, arguments))
    processes = [
        _server().Process(
            target=_rank, args=(rank, ranks, port, file, function, result, texts, environment), daemon=True
        )
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=PATIENCE_S)
    assert [process.exitcode for process in processes] == [0] * ranks
    return torch.load(result)


@cache
def _server() -> ForkServerContext:
    """Forks ranks from one process that has imported what they need, which takes each of them seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["actors.zero.loading", "actors.zero.lora", "actors.zero.model", "deepspeed"])
    return context


def _rank(
    rank: int,
    ranks: int,
    port: int,
    file: str,
    function: str,
    result: Path,
    arguments: tuple[str, ...],
    environment: dict[str, str],
) -> None:
    from actors.distributed.devices import join_world, prepare_process

    gc.freeze()  # DeepSpeed starts a full collection for every engine, which else walks all that the server imported
    os.environ.clear()
    os.environ.update(environment)
    prepare_process(1)
    join_world(rank, ranks, "127.0.0.1", port, 60)
    found = runpy.run_path(file)[function](rank, ranks, *arguments)
    if rank == 0:
        torch.save(found, result)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()  # gloo threads left running can abort the exit
