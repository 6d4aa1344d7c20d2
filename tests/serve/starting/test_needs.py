from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.preflight.capacity import GIB, Capacity, Nodes
from configs.errors import ConfigError
from serve.config import ServeConfig, read_arguments
from serve.starting.needs import bundles, memory_bytes, require_room


def config(make_model: Callable[..., Path], **more: Any) -> ServeConfig:
    return read_arguments({"model": f"x={make_model('a')}", **more})


def cluster(count: int = 1, memory: int | None = 64 * GIB, **resources: float) -> Capacity:
    return Capacity((Nodes(count, resources, memory),))


def test_each_deployment_has_its_bundles(make_model: Callable[..., Path]) -> None:
    judge = str(make_model("judge", seed=3, reward=True))
    replicas = {"count": 2, "gpus": 2, "cpus": 1.5}
    assert bundles(config(make_model, reward_model=judge, replicas=replicas)) == {
        "gateway": [{"CPU": 0.25}],
        "engine:x": [{"CPU": 1.5, "GPU": 1.0}] * 4,
        "scorer:judge": [{"CPU": 0.5, "GPU": 1.0}],
    }


def test_what_never_fits_is_refused_with_needs_and_advice(make_model: Callable[..., Path]) -> None:
    small = config(make_model)
    require_room(small, cluster(CPU=1.25))
    with pytest.raises(
        ConfigError, match=r"needs 1\.25 CPU \(gateway 0\.25 CPU; engine:x 1 CPU\) .* has 1: lower repl"
    ):
        require_room(small, cluster(CPU=1.0))
    with pytest.raises(
        ConfigError, match=r"needs 1 GPU .* and the cluster has 0: set replicas\.gpus=0 to run on CPUs, lower"
    ):
        require_room(config(make_model, replicas={"gpus": 1}), cluster(CPU=8.0))
    with pytest.raises(ConfigError, match=r"^engine:x needs 3 CPU on one node, and no node has that"):
        require_room(config(make_model, replicas={"cpus": 3.0}), cluster(2, CPU=2.0))
    require_room(small, Capacity((), open_ended=True))  # an autoscaler may bring any node


def test_memory_counts_weights_cache_and_processes(make_model: Callable[..., Path]) -> None:
    small = config(make_model, replicas={"count": 2})
    cache_and_process = 2 * GIB
    assert 2 * cache_and_process < memory_bytes(small) < 2 * cache_and_process + GIB // 64
    with pytest.raises(
        ConfigError, match=r"needs about 4\.0 GiB of memory and 3\.0 GiB are available: lower engine\.kv"
    ):
        require_room(small, cluster(CPU=8.0, memory=3 * GIB))
    require_room(small, cluster(CPU=8.0, memory=None))  # not known
