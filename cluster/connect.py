"""A trainer's way into Ray: the cluster it was told to join, or a small one of its own that only this machine reaches.

with connect(num_cpus=8) as cluster:
    ...
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.environment import for_local_cluster
from configs.errors import ConfigError

MIB = 1024 * 1024

# A Unix socket's path has at most 107 bytes; below its temporary folder Ray needs 69 of them.
_LONGEST_TEMPORARY_FOLDER = 38


@dataclass(frozen=True)
class Connection:
    """The cluster that this process is connected to."""

    started_here: bool
    session_dir: Path
    """Ray's folder for this cluster on this machine; the command lines of its processes name it."""
    dashboard_url: str | None


@contextmanager
def connect(
    *,
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    dashboard: bool = False,
    log_to_driver: bool = False,
    object_store_bytes: int = 512 * MIB,
    insecure: bool = False,
) -> Iterator[Connection]:
    """Join the cluster of `$RAY_ADDRESS` (which a submitted job always has), else start one on 127.0.0.1.

    A cluster started here ends with the `with` block; one that was joined, or to which this process was connected
    already, stays. Workers import this project's packages: from the job's copy in a job, from the driver's otherwise.

    Args:
        num_cpus: logical CPUs of a cluster started here; the machine's by default. Ignored when joining.
        num_gpus: likewise for GPUs.
        dashboard: whether a cluster started here has a dashboard (seconds to start, about 300 MB).
        log_to_driver: whether the output of actors is repeated on this process's output.
        object_store_bytes: shared memory of a cluster started here.
        insecure: whether to join a cluster that other machines reach without a token.

    Raises:
        ConfigError: the cluster cannot be joined, or none can be started; within seconds.
    """
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    if ray.is_initialized():
        yield _connection(started_here=False)
        return
    address = os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {"log_to_driver": log_to_driver, "logging_level": logging.ERROR}
    try:
        if address == "local":
            _start(
                num_cpus=num_cpus,
                num_gpus=num_gpus,
                include_dashboard=dashboard,
                object_store_memory=object_store_bytes,
                **_temporary_folders(object_store_bytes),
                **options,
            )
        else:
            from cluster.join import join

            join(address, options, insecure)
        yield _connection(started_here=address == "local")
    finally:
        ray.shutdown()


def _start(**options: Any) -> None:
    """Start a cluster whose every port is on 127.0.0.1."""
    os.environ.update(for_local_cluster())
    import ray

    from cluster.ray_internals import ray_constants

    # Ray takes 127.0.0.1 as its node's address, and then listens nowhere else, only with this switch, which it reads
    # from the environment when first imported: possibly before this.
    multi_node = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        ray.init(address="local", dashboard_host="127.0.0.1", **options)
    except Exception as error:  # Ray raises this very class where a node does not come up in time
        raise ConfigError(f"Ray cannot start here: {error}") from error
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = multi_node


def _temporary_folders(object_store_bytes: int) -> dict[str, str]:
    """`ray.init` options: a temporary folder short enough for sockets, and one with room for the object store."""
    chosen = os.environ.get("RAY_TMPDIR")
    if chosen and len(chosen) > _LONGEST_TEMPORARY_FOLDER:
        raise ConfigError(
            f"RAY_TMPDIR={chosen} is too long for the sockets in it: give at most {_LONGEST_TEMPORARY_FOLDER} characters"
        )
    common = os.environ.get("TMPDIR", "/tmp")  # noqa: S108 - Ray makes its session folder in it
    folder = chosen or (common if len(common) <= _LONGEST_TEMPORARY_FOLDER else "/tmp")  # noqa: S108 - as above
    options = {"_temp_dir": os.path.join(folder, "ray")}
    shared = "/dev/shm"  # noqa: S108 - only its free space is read
    if not os.path.isdir(shared) or shutil.disk_usage(shared).free < object_store_bytes:
        need = object_store_bytes // MIB
        print(f"note: {shared} has less than {need} MiB free, so Ray's objects go to {folder}", file=sys.stderr)
        options["_plasma_directory"] = folder
    return options


def _connection(*, started_here: bool) -> Connection:
    from cluster.ray_internals import dashboard_url, session_folder

    url = dashboard_url()
    return Connection(started_here, session_folder(), f"http://{url}" if url else None)
