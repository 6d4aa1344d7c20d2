"""Base classes of a role's process: address, torch.distributed world, heartbeat, and forward passes over rows.

The driver imports the classes of all roles, so their modules import Transformers' models, DeepSpeed, and vLLM only inside
methods that run in the role's own process; together they take ten seconds to import.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
import pyarrow as pa
from torch import Tensor

from actors.config import InFlight, SleepLevel
from actors.device_memory import DeviceMemory, Resident
from actors.distributed.devices import device, join_world, prepare_process
from actors.inference.engine_memory import EngineMemory
from actors.modeling.packed import PackedBatch
from actors.modeling.rows import as_list_column, pack
from actors.table import require
from cluster.liveness.heartbeat import Heartbeat
from cluster.memory import resident_bytes
from configs.logs import configure

Place = tuple[str, str, int]
"""(run name, role, rank)."""


@dataclass(frozen=True)
class RunContext:
    """What the roles of a run need to load their models.

    Attributes:
        roles: settings of each role to start, from actors/config.py.
        model: folder or Hub id of the weights with which engines start.
        seed: seed of the engines.
        end_ids: tokens that end a response.
        updates: optimizer steps of the whole run; 0 if there are no learners.
        native_transfer: vLLM's weight-transfer backend, if weights are sent through one.
        in_flight: what happens to an engine's running requests when its weights change.
        policy_columns: what the policy adds to the responses: `logprobs`, and `ref_logprobs` if its base is the reference.
        sleep_level: how engines free their memory if other roles need it; 0: they do not.
    """

    roles: Mapping[str, Any]
    model: str
    seed: int
    end_ids: tuple[int, ...]
    updates: int = 0
    native_transfer: str | None = None
    in_flight: InFlight = "none"
    policy_columns: tuple[str, ...] = ("logprobs",)
    sleep_level: SleepLevel = 0


M = TypeVar("M", bound=Callable[..., Any])


def needs(resident: Resident) -> Callable[[M], M]:
    """Marks a method that needs only a part of what its process can hold on its device; others need all of it.

    See `actors.groups.turns`.
    """

    def mark(method: M) -> M:
        method.needs = resident  # type: ignore[attr-defined]
        return method

    return mark


class Worker:
    """One rank of a role. A plain class, so it runs in a Ray actor, a test, or a notebook."""

    version: int | None = None
    """Version of the published policy weights that this process holds; None for roles that receive none."""
    trains: ClassVar[bool] = False
    """Whether the role's ranks train together, in one torch.distributed world."""
    runs_vllm: ClassVar[bool] = False
    """Whether the process runs a vLLM engine."""
    memory: DeviceMemory | EngineMemory | None = None
    """The device memory of the process's model, once it is loaded; None if the process needs no device."""

    def __init__(self, threads: int, place: Place | None = None) -> None:
        """Sets the number of threads; with a `place`, also sets up logging and starts heartbeats for it.

        A `place` requires a Ray actor.
        """
        prepare_process(threads)
        if place is not None:
            run, role, rank = place
            configure(f"{role}-{rank}", run)
            Heartbeat(*place, version=lambda: self.version).start()

    @classmethod
    def setup_arguments(cls, role: str, context: RunContext) -> tuple[Any, ...]:
        """Returns the arguments with which the driver calls `setup` on every rank of `role`."""
        return (context.roles[role],)

    @classmethod
    def calls_at_once(cls, settings: Any) -> int:
        """Returns how many concurrent calls a process with these settings of its role must accept."""
        return 1

    @needs("nothing")
    def hold(self, resident: Resident) -> None:
        """Frees device memory for other processes, or restores it, so that this process holds `resident`."""
        if self.memory is not None:
            self.memory.hold(resident)

    @needs("nothing")
    def address(self) -> tuple[str, int]:
        """Returns an address and a free port on which this rank can host its world's rendezvous."""
        host = os.environ.get("RAY_NODE_IP_ADDRESS") or _ray_node_ip()
        with socket.socket() as probe:
            probe.bind(("", 0))
            return host, probe.getsockname()[1]

    @needs("nothing")
    def join(self, rank: int, world_size: int, host: str, port: int, timeout_s: float) -> None:
        """Joins the role's torch.distributed world."""
        join_world(rank, world_size, host, port, timeout_s)

    @needs("nothing")
    def ping(self) -> dict[str, Any]:
        """Returns the process id and the resident memory in bytes; serves as a liveness check."""
        return {"pid": os.getpid(), "rss_bytes": resident_bytes()}


class ForwardWorker(Worker):
    """A worker that computes columns for rows, one micro-batch at a time."""

    def per_row(self, batch: PackedBatch) -> dict[str, Tensor]:
        """Returns new columns of a packed micro-batch: (N,), a value per response token, or (S,), a value per row.

        Raises NotImplementedError unless overridden.
        """
        raise NotImplementedError

    @needs("weights")
    def add_columns(self, table: pa.Table, micro_batches: list[list[int]]) -> pa.Table:
        """Returns the new columns for the rows in `micro_batches`, in that order; `table` itself is not included.

        Raises TableError if `prompt` or `response` is missing.
        """
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


def _column(values: np.ndarray, counts: list[int], total: int) -> pa.Array[Any]:
    if len(values) == len(counts):
        return pa.array(values, pa.float32())
    if len(values) != total:
        raise ValueError(f"a column has {len(values)} values for {len(counts)} rows of {total} tokens")
    return as_list_column(values, counts, pa.float32())


def _ray_node_ip() -> str:
    import ray

    return ray.util.get_node_ip_address() if ray.is_initialized() else "127.0.0.1"
