"""Connects a trainer to Ray: joins the cluster at RAY_ADDRESS, or starts a local one that only this machine can reach.

with connect(num_cpus=8) as cluster:
    ...
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from cluster.environment import for_local_cluster, head_address
from configs.base import REPOSITORY
from configs.errors import ConfigError

logger = logging.getLogger(__name__)

MIB = 1024 * 1024

_HELD = {
    signal.SIGINT: "interrupted: ending as soon as %s; press Ctrl-C again to end at once",
    signal.SIGTERM: "SIGTERM: ending as soon as %s",
}

# A Unix socket's path has at most 107 bytes, of which Ray needs 69 below its temporary folder.
_LONGEST_TEMPORARY_FOLDER = 38


@dataclass(frozen=True)
class Connection:
    """The cluster that this process is connected to.

    Attributes:
        started_here: whether `connect` started the cluster, rather than joining it.
        dashboard_url: URL of Ray's dashboard; None if the cluster has no dashboard.
    """

    started_here: bool
    session_dir: Path
    """Ray's folder for this cluster on this machine; it appears in the command lines of the cluster's processes."""
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
    """Joins the cluster at `$RAY_ADDRESS` (always set in a submitted job), or else starts a cluster on 127.0.0.1.

    A cluster started here is shut down at the end of the `with` block. A cluster that was joined keeps running, and if
    this process was already connected, it stays connected. In a submitted job, workers import this project's packages
    from the job's copy; otherwise, from the driver's.

    Inside the block, SIGTERM raises SystemExit with the status `os.EX_TEMPFAIL` in a process that does not handle it
    otherwise.

    Args:
        num_cpus: logical CPUs of a cluster started here; default: all of the machine's. Ignored when joining.
        num_gpus: logical GPUs, likewise.
        dashboard: whether a cluster started here has a dashboard, which takes seconds to start and about 300 MB.
        log_to_driver: whether to copy the output of actors to this process's output.
        object_store_bytes: size of the object store of a cluster started here, in bytes.
        insecure: whether to join a cluster that other machines can reach without a token.

    Yields:
        The connection.

    Raises:
        ConfigError: the cluster cannot be joined, or a local one cannot be started; raised within seconds.
    """
    import ray

    from cluster.ray_internals import messages_in_the_log, own_sigterm_handler

    logging.getLogger("ray").setLevel(logging.ERROR)
    if ray.is_initialized():
        yield _connection(started_here=False)
        return
    address = head_address()
    logger.info("starting Ray on this machine" if address is None else f"joining the Ray cluster at {address}")
    options: dict[str, Any] = {"log_to_driver": log_to_driver, "logging_level": logging.ERROR}
    with _ended_by_sigterm(), messages_in_the_log():
        try:
            with signals_held("Ray has started"), own_sigterm_handler():
                if address is None:
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
            yield _connection(started_here=address is None)
        finally:
            with signals_held("Ray has stopped"):
                ray.shutdown()


@contextmanager
def signals_held(until: str) -> Iterator[None]:
    """Defers Ctrl-C and SIGTERM until the block ends; a second Ctrl-C ends the process at once.

    Does nothing in other threads than the main one, nor to a signal that the process ignores, as jobs in the background
    ignore Ctrl-C, or that ends it by default.

    An exception inside `ray.init` or `ray.shutdown` leaves Ray's C++ threads running without their data, and the process
    then ends with a segmentation fault.

    Args:
        until: the end of the block, for the line that is printed when a signal arrives.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    held = {number: handler for number, handler in before.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[tuple[int, FrameType | None]] = []

    def hear(number: int, frame: FrameType | None) -> None:
        if heard and number == signal.SIGINT:
            os._exit(128 + number)  # Ray's processes on this machine end with this one
        if not heard:
            logger.warning(_HELD[signal.Signals(number)], until)
        heard.append((number, frame))

    for signum in held:
        signal.signal(signum, hear)
    try:
        yield
    finally:
        for signum, handler in held.items():
            signal.signal(signum, handler)
    if heard:
        number, frame = heard[0]
        held[signal.Signals(number)](number, frame)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Makes SIGTERM raise SystemExit inside the block, in the main thread of a process that does not handle it yet."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    heard = threading.Event()

    def terminate(number: int, frame: FrameType | None) -> None:
        logger.warning("ended by SIGTERM")
        heard.set()
        raise SystemExit(os.EX_TEMPFAIL)

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except SystemExit as error:
        if not heard.is_set() or error.code == os.EX_TEMPFAIL:
            raise
        raise SystemExit(os.EX_TEMPFAIL) from error  # Ray's calls raise SystemExit(1) in its place
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _start(**options: Any) -> None:
    """Starts a cluster that listens on 127.0.0.1 only."""
    os.environ.update(for_local_cluster())
    import ray

    from cluster.ray_internals import ray_constants, separate_process_groups, workers_import_from

    # Ray uses 127.0.0.1 as its node's address, and listens nowhere else, only if this switch is off. Ray reads the
    # switch from the environment when it is first imported, which may have been before this call.
    multi_node = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        with separate_process_groups(), workers_import_from(REPOSITORY):
            ray.init(address="local", dashboard_host="127.0.0.1", **options)
    except Exception as error:  # Ray raises a bare Exception if a node does not start in time
        raise ConfigError(f"Ray cannot start here: {error}") from error
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = multi_node


def _temporary_folders(object_store_bytes: int) -> dict[str, str]:
    """Returns the `ray.init` options for Ray's temporary folder and, if /dev/shm is too small, for the object store's.

    The path of the temporary folder is short enough for Ray's socket paths.

    Raises:
        ConfigError: RAY_TMPDIR is too long.
    """
    chosen = os.environ.get("RAY_TMPDIR")
    if chosen and len(chosen) > _LONGEST_TEMPORARY_FOLDER:
        raise ConfigError(
            f"RAY_TMPDIR={chosen} is too long for Ray's socket paths: use at most {_LONGEST_TEMPORARY_FOLDER} characters"
        )
    common = os.environ.get("TMPDIR", "/tmp")  # noqa: S108 - Ray creates its session folder in it
    folder = chosen or (common if len(common) <= _LONGEST_TEMPORARY_FOLDER else "/tmp")  # noqa: S108 - as above
    options = {"_temp_dir": os.path.join(folder, "ray")}
    shared = "/dev/shm"  # noqa: S108 - only its free space is read
    if not os.path.isdir(shared) or shutil.disk_usage(shared).free < object_store_bytes:
        need = object_store_bytes // MIB
        logger.warning("%s has less than %d MiB free, so Ray stores its objects in %s", shared, need, folder)
        options["_plasma_directory"] = folder
    return options


def _connection(*, started_here: bool) -> Connection:
    from cluster.ray_internals import dashboard_url, session_folder

    url = dashboard_url()
    return Connection(started_here, session_folder(), f"http://{url}" if url else None)
