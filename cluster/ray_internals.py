"""The parts of Ray's private modules that this project uses; they may change with every version of Ray.

Written for Ray 2.60. The internals of Ray Serve and Ray Serve LLM are used only in `serve/replica.py` and
`serve/engines/`. Importing this module imports Ray, which then reads its environment variables.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants as ray_constants
from ray._private import services
from ray._private.accelerators.nvidia_gpu import NvidiaGPUAcceleratorManager as NvidiaGPUAcceleratorManager
from ray._private.authentication.authentication_token_setup import (
    _enable_token_auth,
)
from ray._private.authentication.authentication_token_setup import (
    maybe_enable_token_auth_if_token_available as maybe_enable_token_auth_if_token_available,
)
from ray._private.gcs_utils import create_gcs_channel as create_gcs_channel
from ray._private.services import (
    canonicalize_bootstrap_address_or_die as canonicalize_bootstrap_address_or_die,
)
from ray._private.services import find_gcs_addresses as find_gcs_addresses
from ray._private.services import get_node_ip_address as get_node_ip_address
from ray._private.services import node_ip_address_from_perspective as node_ip_address_from_perspective
from ray._private.state import actors as actors  # the public list needs a dashboard
from ray._private.utils import estimate_available_memory as estimate_available_memory
from ray.core.generated import autoscaler_pb2 as autoscaler_pb2
from ray.core.generated import autoscaler_pb2_grpc as autoscaler_pb2_grpc
from ray.core.generated import gcs_pb2 as gcs_pb2
from ray.core.generated import gcs_service_pb2 as gcs_service_pb2
from ray.core.generated import gcs_service_pb2_grpc as gcs_service_pb2_grpc
from ray.core.generated.common_pb2 import ActorDiedErrorContext as ActorDiedErrorContext
from ray.core.generated.gcs_pb2 import ActorTableData as ActorTableData
from ray.core.generated.gcs_pb2 import PlacementGroupTableData as PlacementGroupTableData
from ray.job_config import JobConfig

logger = logging.getLogger(__name__)

AUTOSCALER_SPACE: str = ray._raylet.GCS_AUTOSCALER_STATE_NAMESPACE
"""Namespace of the autoscaler's values in the cluster's key-value store."""
AUTOSCALER_CONFIG_KEY: str = ray._raylet.GCS_AUTOSCALER_CLUSTER_CONFIG_KEY


def reread_token_mode() -> None:
    """Applies the current RAY_AUTH_MODE, which Ray otherwise reads only when it is imported."""
    _enable_token_auth()


@contextmanager
def separate_process_groups() -> Iterator[None]:
    """Gives every Ray process that is started inside the block its own process group.

    A signal to this process's group, such as Ctrl-C, a shell's `kill %1`, or that of `timeout`, then reaches only this
    process, which needs Ray's processes to save a checkpoint. They still end with this process.
    """
    original = services.ConsolePopen

    class Detached(original):  # type: ignore[valid-type, misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, process_group=0, **options)

    services.ConsolePopen = Detached
    try:
        yield
    finally:
        services.ConsolePopen = original


@contextmanager
def workers_import_from(folder: Path) -> Iterator[None]:
    """Makes workers of a cluster that is started inside the block import from `folder` first.

    Ray would add the driver's current folder, in which packages may have the names of this project's. Does nothing in a
    job with a `working_dir`, from which its workers import.
    """
    original = JobConfig._serialize

    def serialize(config: JobConfig) -> bytes:
        if not config._runtime_env_has_working_dir():
            config._py_driver_sys_path = [str(folder)]
        serialized: bytes = original(config)
        return serialized

    JobConfig._serialize = serialize
    try:
        yield
    finally:
        JobConfig._serialize = original


@contextmanager
def own_sigterm_handler() -> Iterator[None]:
    """Keeps this process's handler of SIGTERM, which `ray.init` would otherwise replace, inside the block."""
    original = ray._private.utils.set_sigterm_handler
    ray._private.utils.set_sigterm_handler = _keep_handler
    try:
        yield
    finally:
        ray._private.utils.set_sigterm_handler = original


@contextmanager
def messages_in_the_log() -> Iterator[None]:
    """Logs what Ray's processes report to this driver inside the block; Ray would print it to stdout, among results."""
    original = ray._private.worker.print_to_stdstream

    def log(data: dict[str, Any], ignore_prefix: bool) -> None:
        if data["pid"] != "raylet":
            original(data, ignore_prefix)
            return
        for message in data["lines"]:
            logger.warning("Ray: %s", message)

    ray._private.worker.print_to_stdstream = log
    try:
        yield
    finally:
        ray._private.worker.print_to_stdstream = original


def _keep_handler(handler: object) -> None:
    """Takes the place of Ray's function that installs a handler of SIGTERM."""


def session_folder() -> Path:
    """Returns the folder of the Ray session that this process has joined, which holds its logs."""
    return Path(ray._private.worker._global_node.get_session_dir_path())


def dashboard_url() -> str | None:
    """Returns `HOST:PORT` of the dashboard of the cluster that this process has joined; None if it has no dashboard."""
    url: str | None = ray._private.worker._global_node.address_info.get("webui_url")
    return url


def draining_nodes() -> list[str]:
    """Returns the ids of nodes that are being drained, e.g. before a spot instance is reclaimed."""
    return list(ray._private.state.state.get_draining_nodes())


def drain_node(address: str, node_id: str, reason: int, why: str, deadline_ms: int) -> tuple[bool, str]:
    """Requests the head at `address` to drain a node; returns whether it accepts, and the reason if it does not."""
    accepted, refusal = ray._raylet.GcsClient(address=address).drain_node(node_id, reason, why, deadline_ms)
    return accepted, refusal
