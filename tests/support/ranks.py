"""A function of a test file in the ranks of a torch.distributed world, each a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

PATIENCE_S = 240.0

RANK = """
import runpy, sys
rank, world, port, file, function, result, *arguments = sys.argv[1:]
from actors.devices import join_world, prepare_process
prepare_process(1)
join_world(int(rank), int(world), "127.0.0.1", int(port), 60)
import torch
found = runpy.run_path(file)[function](int(rank), int(world), *arguments)
if rank == "0":
    torch.save(found, result)
torch.distributed.barrier()
torch.distributed.destroy_process_group()  # gloo threads left running can abort the exit
"""


def on_ranks(ranks: int, file: str, function: str, folder: Path, *arguments: object) -> Any:
    """What `function(rank, world size, *arguments as text)` of `file` returns on rank 0."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    result = folder / f"{function}-{ranks}.pt"
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])  # `file` may import this one
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": path}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, *map(str, (rank, ranks, port, file, function, result, *arguments))],
            env=environment,
        )
        for rank in range(ranks)
    ]
    assert [process.wait(timeout=PATIENCE_S) for process in processes] == [0] * ranks
    return torch.load(result)
