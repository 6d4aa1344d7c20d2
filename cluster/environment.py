"""The environment variables that this project's processes run under, on every node.

What the user has set is left as it is; the values here are for what they have not.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from storage.paths import JOB_VARIABLE, RUNS_VARIABLE, runs_root

EVERYWHERE: Mapping[str, str] = {
    # OpenMP threads that spin while they wait take the core from the process that they are waiting for.
    "KMP_BLOCKTIME": "0",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    # Models of the Hub are downloaded before roles start, which then load them from the cache.
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    # FlashInfer's sampler compiles with nvcc when it is first used, which machines and images without CUDA's tools lack.
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    # Serve's HTTP proxy reaches the gateway over gRPC too.
    "RAY_SERVE_PROXY_USE_GRPC": "1",
}

_SPINS = "1000000"
"""How often an OpenMP thread looks for work before it sleeps: a few milliseconds.

A decoded token is hundreds of short parallel regions. Threads that sleep between them take half as long again; threads
that never sleep would take the core from the role whose turn it is.
"""

_HUGE_PAGES = "glibc.malloc.hugetlb=1"
"""Tensors come and go by the hundred megabytes a step: memory that is mapped anew is mapped 2 MiB at a time, not 4 KiB."""

OF_HUBS = ("HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "CHIMED_HUB")
"""Where models come from and where they are kept: the driver's settings are also those of a cluster that it joins."""

WORKERS_ON_LOOPBACK: Mapping[str, str] = {"GLOO_SOCKET_IFNAME": "lo", "VLLM_HOST_IP": "127.0.0.1"}
"""Where gloo and vLLM listen in a cluster that only this machine reaches."""

_SWITCH = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""At 0, Ray takes 127.0.0.1 as the node's address and listens nowhere else. `--node-ip-address=127.0.0.1` alone is
replaced by the machine's outer address, and every port of Ray is open on it."""

LOOPBACK: Mapping[str, str] = {
    # A cluster that only this machine can reach.
    "RAY_AUTH_MODE": "disabled",
    _SWITCH: "0",
    # The head remembers so many calls for the dashboard; with Ray's 100,000 it grows for hours, by 3 MB a thousand.
    "RAY_task_events_max_num_task_in_gcs": "1000",
    **WORKERS_ON_LOOPBACK,
}


def for_local_cluster() -> dict[str, str]:
    """Variables of a cluster started here; every process of it inherits them from the driver."""
    tools = str(Path(sys.executable).parent)  # `ninja`, which DeepSpeed calls by name
    path = os.environ.get("PATH", "")
    if tools not in path.split(os.pathsep):
        path = os.pathsep.join([tools, path])
    return {**_unless_set({**EVERYWHERE, **LOOPBACK}), RUNS_VARIABLE: str(runs_root()), "PATH": path}


def for_joined_cluster(on_loopback: bool = False) -> dict[str, str]:
    """Variables for the workers of a cluster that runs already, as a `runtime_env` carries them.

    Those that the submitted job sets are left out: Ray refuses a variable that job and driver both set.

    Args:
        on_loopback: whether the cluster listens on 127.0.0.1 only; its workers then do so too.
    """
    variables = {**_unless_set(EVERYWHERE), RUNS_VARIABLE: str(runs_root())}
    if on_loopback:
        variables |= _unless_set(WORKERS_ON_LOOPBACK)
    variables |= {name: os.environ[name] for name in OF_HUBS if name in os.environ}
    variables["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), "${PATH}"])
    job = json.loads(os.environ.get(JOB_VARIABLE, "{}"))
    set_by_job = (job.get("runtime_env") or {}).get("env_vars") or {}
    return {name: value for name, value in variables.items() if name not in set_by_job}


def stay_on_loopback() -> None:
    """Make this process, and those that it starts, join and start clusters on 127.0.0.1 only."""
    from cluster.ray_internals import ray_constants

    os.environ[_SWITCH] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False  # read from the environment when Ray was imported: possibly before this


def for_computing(threads: int, on_gpus: bool) -> dict[str, str]:
    """Variables of one process that computes with `threads` OpenMP threads, for its own `runtime_env`.

    One that has no GPU reserved sees none: Ray hides GPUs only from those that reserve others.
    """
    variables = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if on_gpus:
        return variables
    hidden = {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return variables | hidden | _unless_set({"GOMP_SPINCOUNT": _SPINS, "GLIBC_TUNABLES": _HUGE_PAGES})


def _unless_set(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: os.environ.get(name, value) for name, value in variables.items()}
