"""What every role's process can do: say where it is, join its world, answer that it lives."""

from __future__ import annotations

import os
import socket
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from actors.distributed.devices import device, join_world, prepare_process
from actors.modeling.packed import PackedBatch
from actors.modeling.rows import as_list_column, pack
from actors.table import require
from cluster.liveness.heartbeat import Heartbeat
from cluster.memory import resident_bytes

Place = tuple[str, str, int]
"""The run's name, the role, the rank."""


class Worker:
    """One rank of a role. A plain class: it runs in a Ray actor, a test or a notebook alike."""

    version: int | None = None
    """Version of the policy's weights that this process computes with, where they come by publishing."""

    def __init__(self, threads: int, place: Place | None = None) -> None:
        """With a `place` the process shows signs of life as that; it must be a Ray actor then."""
        prepare_process(threads)
        if place is not None:
            Heartbeat(*place, version=lambda: self.version).start()

    def address(self) -> tuple[str, int]:
        """An address and a free port at which this rank can gather its world."""
        host = os.environ.get("RAY_NODE_IP_ADDRESS") or _ray_node_ip()
        with socket.socket() as probe:
            probe.bind(("", 0))
            return host, probe.getsockname()[1]

    def join(self, rank: int, world_size: int, host: str, port: int, timeout_s: float) -> None:
        """Enters the role's torch.distributed world."""
        join_world(rank, world_size, host, port, timeout_s)

    def ping(self) -> dict[str, Any]:
        """Proof of life: process id and resident memory in bytes."""
        return {"pid": os.getpid(), "rss_bytes": resident_bytes()}


class ForwardWorker(Worker):
    """A worker that adds columns to rows, micro-batch by micro-batch."""

    def per_row(self, batch: PackedBatch) -> dict[str, Tensor]:
        """New columns for one packed micro-batch: (N,) for a value a response token, (S,) for a value a row.

        Raises NotImplementedError unless overridden.
        """
        raise NotImplementedError

    def add_columns(self, table: pa.Table, micro_batches: list[list[int]]) -> pa.Table:
        """The new columns of the rows in `micro_batches`, in that order."""
        require(table, ("prompt", "response"), type(self).__name__)
        columns: dict[str, list[np.ndarray]] = {}
        counts: list[int] = []
        for rows in micro_batches:
            batch = pack(table, rows)
            counts += batch.target_counts
            for name, values in self.per_row(batch.to(device())).items():
                columns.setdefault(name, []).append(values.float().cpu().numpy())
        total = sum(counts)
        return pa.table({name: _column(np.concatenate(parts), counts, total) for name, parts in columns.items()})


def _column(values: np.ndarray, counts: list[int], total: int) -> pa.Array:
    if len(values) == len(counts):
        return pa.array(values, pa.float32())
    if len(values) != total:
        raise ValueError(f"a column has {len(values)} values for {len(counts)} rows of {total} tokens")
    return as_list_column(values, counts, pa.float32())


def _ray_node_ip() -> str:
    import ray

    return ray.util.get_node_ip_address() if ray.is_initialized() else "127.0.0.1"
