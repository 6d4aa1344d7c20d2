"""The capacity of an existing or planned cluster: nodes with their resources, memory, and GPU memory."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from cluster.head import Head
from cluster.memory import available_bytes
from cluster.scaling import autoscaled, living
from configs.errors import ConfigError

GIB = 2**30
MANY = 10_000
"""Number of nodes that stands for "unlimited"."""

# Memory in GiB according to the data sheet, by Ray's name for the accelerator. Types with several sizes are omitted.
GPU_GIB = {
    "T4": 16, "A10G": 24, "L4": 24, "L40S": 48, "A100-40G": 40, "A100-80G": 80, "H100": 80, "H200": 141, "H20": 96, "B200": 180, "B300": 270,
}  # fmt: skip
GPU_USABLE = 0.97  # fraction that the driver leaves to processes


@dataclass(frozen=True)
class Nodes:
    """`count` identical nodes: each one's resources by Ray's names, memory, and memory of one GPU, in bytes.

    A memory size of None is unknown.
    """

    count: int
    resources: Mapping[str, float]
    host_bytes: int | None = None
    gpu_bytes: int | None = None
    name: str = "node"


@dataclass(frozen=True)
class Capacity:
    """The nodes of a cluster, including those that its autoscaler may add."""

    nodes: tuple[Nodes, ...]
    open_ended: bool = False
    """Whether an autoscaler may add further nodes, of which only the autoscaler knows the types and the number."""

    def all_of(self, resource: str) -> float:
        """Returns the total amount of a resource over all nodes."""
        return sum(nodes.count * nodes.resources.get(resource, 0.0) for nodes in self.nodes)

    @property
    def gpu_bytes(self) -> int | None:
        """Memory of the smallest GPU whose memory is known, in bytes; None if none is known."""
        return min((nodes.gpu_bytes for nodes in self.nodes if nodes.gpu_bytes), default=None)

    def with_gpus_of(self, gpu_bytes: int | None) -> Capacity:
        """Returns a copy in which GPUs of unknown memory have `gpu_bytes`."""
        return replace(self, nodes=tuple(replace(n, gpu_bytes=n.gpu_bytes or gpu_bytes) for n in self.nodes))


def capacity_of(head: Head) -> Capacity:
    """Returns the cluster's nodes, and those that its autoscaler may add, if the head knows the autoscaler's limits."""
    reply = head.resources()
    there = tuple(_nodes(1, node.total_resources, node.ray_node_type_name or "node") for node in living(reply))
    limits = head.limits()
    if limits is None:
        return Capacity(there, open_ended=autoscaled(reply))
    here = [node.ray_node_type_name for node in living(reply)]
    more = tuple(
        _nodes((MANY if group.max_count < 0 else group.max_count) - here.count(group.name), group.resources, group.name)
        for group in limits.node_group_configs
    )
    return Capacity(there + tuple(nodes for nodes in more if nodes.count > 0))


def this_machine(num_cpus: int | None, num_gpus: int | None) -> Capacity:
    """Returns the capacity of a local cluster on this machine.

    Args:
        num_cpus: CPUs according to the stage's `cluster` settings; None for all of the machine's.
        num_gpus: GPUs, likewise.
    """
    from cluster.ray_internals import NvidiaGPUAcceleratorManager as Gpus

    gpus = Gpus.get_current_node_num_accelerators() if num_gpus is None else num_gpus
    kind = Gpus.get_current_node_accelerator_type() if gpus else None
    resources = {"CPU": float(num_cpus or os.cpu_count() or 1), **({"GPU": float(gpus)} if gpus else {})}
    gpu = _usable(GPU_GIB[kind]) if kind in GPU_GIB else None
    return Capacity((Nodes(1, resources, available_bytes(), gpu, "this machine"),))


def parse_nodes(text: str) -> Capacity:
    """Parses the nodes of a planned cluster, such as `2x64CPU,8GPU,1000GiB,H100`; several kinds are joined by `+`.

    Raises:
        ConfigError: `text` cannot be parsed.
    """
    return Capacity(tuple(_parsed(part.strip()) for part in text.split("+")))


def _parsed(text: str) -> Nodes:
    found = re.fullmatch(r"(?:(\d+)x)?(\w[\w.,-]*)", text)
    parts = found[2].split(",") if found else []
    resources: dict[str, float] = {}
    host = gpu = None
    for part in parts:
        amount = re.fullmatch(r"(\d+(?:\.\d+)?)(CPU|GPU|GiB)", part)
        if amount and amount[2] == "GiB":
            host = int(float(amount[1]) * GIB)
        elif amount:
            resources[amount[2]] = float(amount[1])
        elif part in GPU_GIB:
            gpu = _usable(GPU_GIB[part])
        else:
            raise ConfigError(
                f"--nodes: {part!r} is not a resource; use e.g. 64CPU, 8GPU, 1000GiB, or a GPU name ({', '.join(GPU_GIB)})"
            )
    if not found or not resources:
        raise ConfigError(f"--nodes: {text!r} is not a list of nodes; give e.g. 2x64CPU,8GPU,1000GiB,H100")
    return Nodes(int(found[1] or 1), resources, host, gpu)


def _nodes(count: int, resources: Mapping[str, float], name: str) -> Nodes:
    """Returns identical nodes. Ray's `memory` is what was free when a node started, minus the object store."""
    memory = resources.get("memory", 0) + resources.get("object_store_memory", 0)
    gpu = next((_usable(GPU_GIB[kind]) for kind in _accelerators(resources) if kind in GPU_GIB), None)
    return Nodes(count, dict(resources), int(memory) or None, gpu, name)


def _accelerators(resources: Mapping[str, float]) -> Iterator[str]:
    for name in resources:
        if name.startswith("accelerator_type:"):
            yield name.partition(":")[2]


def _usable(gib: float) -> int:
    return int(GPU_USABLE * gib * GIB)
