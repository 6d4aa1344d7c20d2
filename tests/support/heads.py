"""Ray heads of `ray start --head`, each with ports and a folder of its own, ended by their process ids."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cluster.environment import LOOPBACK

START_S = 90.0
STOP_S = 30.0


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def outside_of_clusters(more: Mapping[str, str]) -> dict[str, str]:
    """This process's variables without those that clusters of its own on loopback have set, and `more`."""
    return {**{name: value for name, value in os.environ.items() if name not in LOOPBACK}, **more}


@contextmanager
def running_head(*options: str, dashboard: bool = False, cpus: int = 1, **environment: str) -> Iterator[str]:
    """A cluster of one node; yields 127.0.0.1:PORT of its head when that answers."""
    port, folder = free_port(), Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", f"--port={port}"]
    command += [f"--temp-dir={folder}", f"--num-cpus={cpus}", "--object-store-memory=100000000"]
    command += [f"--include-dashboard={str(dashboard).lower()}", f"--dashboard-port={free_port()}"]
    command += [f"--dashboard-agent-listen-port={free_port()}", f"--ray-client-server-port={free_port()}"]
    log = folder / "output.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *options],
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=outside_of_clusters(environment),
        )
        try:
            _wait_for(process, log)
            yield f"127.0.0.1:{port}"
        finally:
            _end(process)
            shutil.rmtree(folder, ignore_errors=True)


def _wait_for(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while "Ray runtime started" not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(log.read_text())
        time.sleep(0.2)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # the session that was started above, and nothing else
        process.wait()
