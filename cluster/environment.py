"""The environment variables of this project's processes, on every node.

Variables that the user has set are kept; the values here are defaults for the others.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from storage.paths import JOB_VARIABLE, RUNS_VARIABLE, runs_root

EVERYWHERE: Mapping[str, str] = {
    # An OpenMP thread that spins while it waits occupies a core that another process may need.
    "KMP_BLOCKTIME": "0",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    # Hub models are downloaded before the roles start, and the roles load them from the cache.
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    # FlashInfer compiles its sampler on first use with nvcc, which machines without the CUDA toolkit lack.
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    # Serve's HTTP proxy also uses gRPC to the gateway.
    "RAY_SERVE_PROXY_USE_GRPC": "1",
}

_SPINS = "1000000"
"""How many times an idle OpenMP thread polls for work before it sleeps: a few milliseconds.

Decoding a token runs hundreds of short parallel regions. If threads slept between them, decoding would take 1.5 times
as long; if threads never slept, they would occupy cores that another role needs.
"""

_HUGE_PAGES = "glibc.malloc.hugetlb=1"
"""Maps memory in pages of 2 MiB instead of 4 KiB: each step frees and maps hundreds of megabytes of tensors."""

_SEGMENTS = "expandable_segments:True"
"""Lets a block of GPU memory grow: micro-batches of changing sizes otherwise leave blocks that fit no other size."""

OF_HUBS = ("HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "CHIMED_HUB")
"""Variables that specify where models are downloaded from and cached. Workers on a joined cluster get the driver's
values."""

WORKERS_ON_LOOPBACK: Mapping[str, str] = {"GLOO_SOCKET_IFNAME": "lo", "VLLM_HOST_IP": "127.0.0.1"}
"""Makes gloo and vLLM listen on loopback, in a cluster that only this machine can reach."""

_SWITCH = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""If 0, Ray uses 127.0.0.1 as the node's address and listens nowhere else. Otherwise, Ray replaces
`--node-ip-address=127.0.0.1` with the machine's external address and opens every port on it."""

LOOPBACK: Mapping[str, str] = {
    # No token is needed: only this machine can reach the cluster.
    "RAY_AUTH_MODE": "disabled",
    _SWITCH: "0",
    # Number of calls that the head keeps for the dashboard. With Ray's default of 100,000, the head's memory grows for
    # hours, by 3 MB per thousand calls.
    "RAY_task_events_max_num_task_in_gcs": "1000",
    **WORKERS_ON_LOOPBACK,
}


def head_address() -> str | None:
    """Returns the value of RAY_ADDRESS, HOST:PORT or `auto`; None if a cluster is to be started on this machine."""
    address = os.environ.get("RAY_ADDRESS", "")
    return None if address in ("", "local") else address


def for_local_cluster() -> dict[str, str]:
    """Returns the variables of a cluster started here, which all its processes inherit from the driver."""
    tools = str(Path(sys.executable).parent)  # has `ninja`, which DeepSpeed runs by name
    path = os.environ.get("PATH", "")
    if tools not in path.split(os.pathsep):
        path = os.pathsep.join([tools, path])
    return {**_unless_set({**EVERYWHERE, **LOOPBACK}), RUNS_VARIABLE: str(runs_root()), "PATH": path}


def for_joined_cluster(on_loopback: bool = False) -> dict[str, str]:
    """Returns the variables for workers on a running cluster, for `env_vars` of a `runtime_env`.

    Variables that the submitted job sets are omitted, because Ray rejects a variable that both the job and the driver
    set.

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
    """Makes this process and its children start and join clusters on 127.0.0.1 only."""
    from cluster.ray_internals import ray_constants

    os.environ[_SWITCH] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False  # Ray reads the variable only when it is imported, maybe before this call


def for_computing(threads: int, on_gpus: bool, with_vllm: bool = False) -> dict[str, str]:
    """Returns the variables of one computing process, for its `runtime_env`.

    GPUs are hidden from a process that reserves none, because Ray hides GPUs only from processes that reserve others.

    Args:
        threads: number of OpenMP threads.
        on_gpus: whether the process reserves a GPU.
        with_vllm: whether the process runs vLLM, whose all-reduce and sleep mode do not work with segments that grow.
    """
    variables = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if on_gpus:
        return variables if with_vllm else variables | _unless_set({"PYTORCH_CUDA_ALLOC_CONF": _SEGMENTS})
    hidden = {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return variables | hidden | _unless_set({"GOMP_SPINCOUNT": _SPINS, "GLIBC_TUNABLES": _HUGE_PAGES})


def _unless_set(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: os.environ.get(name, value) for name, value in variables.items()}
