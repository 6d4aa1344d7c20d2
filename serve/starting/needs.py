"""Checks that a cluster has the resources for the endpoint. Serve alone would wait indefinitely without an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from actors.model_folder.folders import ModelFolder
from actors.model_folder.weights import tensor_shapes
from cluster.preflight.capacity import GIB, Capacity
from cluster.scaling import text_of
from configs.errors import ConfigError
from serve.app import GATEWAY_CPUS, SCORER_CPUS
from serve.config import ServeConfig, named_folders

_PROCESS_BYTES = GIB  # memory of one vLLM engine or scorer on CPUs besides weights and KV cache; measured: 0.8 GiB
_BYTES = {"float32": 4, "bfloat16": 2}

Bundle = Mapping[str, float]


def bundles(config: ServeConfig) -> dict[str, list[Bundle]]:
    """Returns the resource bundles of each deployment. A bundle must fit on one node."""
    replicas = config.replicas
    engine: Bundle = {"CPU": replicas.cpus, **({"GPU": 1.0} if replicas.gpus else {})}
    needs: dict[str, list[Bundle]] = {"gateway": [{"CPU": GATEWAY_CPUS}]}
    for name in named_folders(config.model, "model"):
        needs[f"engine:{name}"] = [engine] * max(1, replicas.gpus) * replicas.count
    if config.reward_model:
        (name,) = named_folders(config.reward_model, "reward_model")
        needs[f"scorer:{name}"] = [{"CPU": SCORER_CPUS, **({"GPU": 1.0} if replicas.gpus else {})}]
    return needs


def memory_bytes(config: ServeConfig) -> int:
    """Estimates the host memory of all engines and the reward model on CPUs, in bytes.

    Returns 0 if the replicas use GPUs: host memory is then not checked, and vLLM checks GPU memory itself.
    """
    if config.replicas.gpus:
        return 0
    needed = 0
    for folder in named_folders(config.model, "model").values():
        weights = _elements(folder, "model") * _BYTES[config.engine.dtype]
        needed += config.replicas.count * (weights + config.engine.kv_cache_bytes + _PROCESS_BYTES)
    if config.reward_model:
        (folder,) = named_folders(config.reward_model, "reward_model").values()
        needed += _elements(folder, "reward_model") * _BYTES[config.reward_dtype] + _PROCESS_BYTES
    return needed


def require_room(config: ServeConfig, capacity: Capacity) -> None:
    """Rejects an endpoint that can never become ready on this cluster.

    Raises:
        ConfigError: the cluster has too few CPUs or GPUs, no node with room for one process, or too little memory.
    """
    if capacity.open_ended:  # only the autoscaler knows which nodes can be added
        return
    needs = bundles(config)
    asked = "; ".join(f"{name} {text_of(each)}" for name, each in needs.items())
    everything = [bundle for each in needs.values() for bundle in each]
    for resource in ("CPU", "GPU"):
        total, has = sum(bundle.get(resource, 0.0) for bundle in everything), capacity.all_of(resource)
        if total > has:
            raise ConfigError(
                f"the endpoint needs {total:g} {resource} ({asked}) and the cluster has {has:g}: "
                f"{_advice(resource)}, or join a larger cluster with RAY_ADDRESS"
            )
    for name, each in needs.items():
        if misfit := next((bundle for bundle in each if not _fits(bundle, capacity)), None):
            raise ConfigError(f"{name} needs {text_of([misfit])} on one node, and no node has that: {_advice('CPU')}")
    _require_memory(config, capacity)


def _require_memory(config: ServeConfig, capacity: Capacity) -> None:
    known = [nodes.count * nodes.host_bytes for nodes in capacity.nodes if nodes.host_bytes is not None]
    needed = memory_bytes(config)
    if len(known) == len(capacity.nodes) and needed > sum(known):
        raise ConfigError(
            f"the endpoint needs about {needed / GIB:.1f} GiB of memory and {sum(known) / GIB:.1f} GiB are available: "
            "lower engine.kv_cache_bytes or replicas.count, serve fewer models, or set engine.dtype=bfloat16"
        )


def _advice(resource: str) -> str:
    if resource == "GPU":
        return "set replicas.gpus=0 to run on CPUs, lower replicas.count"
    return "lower replicas.cpus (e.g. 0.5) or replicas.count, serve fewer models"


def _fits(bundle: Bundle, capacity: Capacity) -> bool:
    return any(
        all(nodes.resources.get(name, 0.0) >= amount for name, amount in bundle.items()) for nodes in capacity.nodes
    )


def _elements(path: str, what: str) -> int:
    shapes: Sequence[tuple[int, ...]] = list(tensor_shapes(ModelFolder(path, what).path, what).values())
    total = 0
    for shape in shapes:
        size = 1
        for length in shape:
            size *= length
        total += size
    return total
