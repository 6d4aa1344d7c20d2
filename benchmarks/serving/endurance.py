"""python -m benchmarks.serving.endurance --model DIR: steady load from three keys, with an attacker and engine kills.

Starts an endpoint with two engines and keys of weights 1, 2, and 3. A failed chat is retried up to twice, as in
OpenAI's client, and a broken stream is requested again from its beginning; `lost` counts the chats for which every try
failed. The attacker, a fourth key, sends batches, large texts to tokenize, deep schemas, malformed bodies, and streams
that it abandons.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from ray import serve

from cluster.connect import connect
from cluster.ray_internals import actors
from configs.errors import one_line_errors
from serve.app import build
from storage.paths import require_dir

PROG = "python -m benchmarks.serving.endurance"
TRIES = 3
READY_S = 240.0
REPORT_S = 15.0
ATTACKERS = 12
WEIGHTS: Mapping[str, int] = {"ward-1": 1, "ward-2": 2, "ward-3": 3}
ATTACKER = "attacker"
QUESTIONS = ("高血压吃什么药？", "糖尿病有什么症状？", "头痛挂什么科？", "肺炎要做哪些检查？", "失眠平时要注意什么？")


def key_of(name: str) -> str:
    """Returns the API key `name`. It need not be secret: the endpoint is on loopback and ends with this command."""
    return f"{name}-key-of-the-benchmark"


@dataclass
class Tally:
    """The results of one key's chats."""

    ends: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    seconds: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Returns the counts of results, the number of tokens, and percentiles of a chat's duration, in seconds."""
        deciles = statistics.quantiles(self.seconds, n=20) if len(self.seconds) > 1 else [0.0] * 19
        metrics = {"tokens": self.tokens, "seconds_p50": round(deciles[9], 2), "seconds_p95": round(deciles[18], 2)}
        return {**dict(sorted(self.ends.items())), **metrics}


def main() -> None:
    """Starts the endpoint and sends the load; prints progress every 15 seconds, then the results as JSON."""
    parser = argparse.ArgumentParser(prog=PROG, description=__doc__)
    parser.add_argument("--model", required=True, metavar="DIR", help="model folder in Hugging Face format")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: %(default)s)")
    parser.add_argument("--concurrent", type=int, default=64, help="chats at a time (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=48, help="tokens of each response (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=2, help="engines that are killed (default: %(default)s)")
    options = parser.parse_args()
    with one_line_errors(PROG), connect(num_cpus=4), tempfile.TemporaryDirectory() as folder:
        model = require_dir(options.model, "model", "name a folder in Hugging Face format")
        url = _start(model, Path(folder))
        try:
            print(json.dumps(asyncio.run(_drive(url, options)), indent=1))
        finally:
            serve.shutdown()


def _start(model: Path, folder: Path) -> str:
    """Starts the endpoint and returns its URL once it is ready."""
    keys = {name: {"key": key_of(name), "weight": WEIGHTS.get(name, 1)} for name in (*WEIGHTS, ATTACKER)}
    file = folder / "keys.yaml"
    file.write_text(json.dumps({"keys": keys}), encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    arguments = {
        "model": f"m={model}",
        "api_keys_file": str(file),
        "engine": {"max_concurrent": 8, "kv_cache_bytes": 2**28},
        "replicas": {"count": 2, "threads": 1, "cpus": 0.5},
    }
    serve.run(build(arguments), name="endpoint")
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + READY_S
    while httpx.get(f"{url}/ready", timeout=10).status_code != 200:
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {READY_S:g} s for {url}/ready")
        time.sleep(1)
    return url


async def _drive(url: str, options: argparse.Namespace) -> dict[str, Any]:
    begun = time.monotonic()
    end = begun + options.minutes * 60
    tallies = {name: Tally() for name in WEIGHTS}
    attacks: Counter[str] = Counter()
    killed: list[int] = []

    async def chats(worker: int, client: httpx.AsyncClient, tally: Tally) -> None:
        turn = worker
        while time.monotonic() < end:
            await _chat(client, QUESTIONS[turn % len(QUESTIONS)], options.tokens, turn % 4 != 0, tally)
            turn += 1

    async def attack(worker: int, client: httpx.AsyncClient) -> None:
        turn = worker
        while time.monotonic() < end:
            attacks[await _attack(client, turn)] += 1
            turn += 1

    async def kill() -> None:
        for index in range(options.kills):
            await asyncio.sleep(max(0.0, begun + (index + 1) * (end - begun) / (options.kills + 1) - time.monotonic()))
            killed.append(await asyncio.to_thread(_kill_an_engine))

    async def report() -> None:
        while (now := time.monotonic()) < end:
            await asyncio.sleep(min(REPORT_S, end - now))
            left = max(0, round(end - time.monotonic()))
            each = "  ".join(f"{name} {sum(tally.ends.values())}" for name, tally in tallies.items())
            print(f"eta {left // 60}:{left % 60:02d}  {each}  killed {len(killed)}", flush=True)

    async with AsyncExitStack() as stack:
        clients = {name: await stack.enter_async_context(_client(url, name)) for name in (*WEIGHTS, ATTACKER)}
        async with asyncio.TaskGroup() as tasks:
            for worker in range(options.concurrent):
                name = list(WEIGHTS)[worker % len(WEIGHTS)]
                tasks.create_task(chats(worker, clients[name], tallies[name]))
            for worker in range(ATTACKERS):
                tasks.create_task(attack(worker, clients[ATTACKER]))
            tasks.create_task(kill())
            tasks.create_task(report())
    metrics = {name: {"weight": WEIGHTS[name], **tally.summary()} for name, tally in tallies.items()}
    return {**metrics, ATTACKER: dict(sorted(attacks.items())), "killed": len(killed)}


def _client(url: str, name: str) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {key_of(name)}"}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=180, limits=httpx.Limits(max_connections=None))


async def _chat(client: httpx.AsyncClient, question: str, tokens: int, stream: bool, tally: Tally) -> None:
    """Sends one chat, up to `TRIES` times. Adds its result and the errors of failed tries to `tally`."""
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": question}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": stream,
        **({"stream_options": {"include_usage": True}} if stream else {}),
    }
    kind = "stream" if stream else "whole"
    begun = time.monotonic()
    for attempt in range(TRIES):
        try:
            answer = await client.post("/v1/chat/completions", json=body)
        except httpx.TransportError as error:
            tally.ends[f"try_{type(error).__name__}"] += 1
        else:
            if (written := _written(answer)) is not None:
                tally.tokens += written
                tally.seconds.append(time.monotonic() - begun)
                tally.ends[kind if attempt == 0 else f"{kind}_after_retry"] += 1
                return
            tally.ends[f"try_{answer.status_code}" if answer.status_code != 200 else "try_broken_stream"] += 1
        await asyncio.sleep(0.5 * 2**attempt)
    tally.ends[f"lost_{kind}"] += 1


def _written(answer: httpx.Response) -> int | None:
    """Returns the number of tokens of a complete response or stream; None if it is incomplete or an error."""
    if answer.status_code != 200:
        return None
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return int(answer.json()["usage"]["completion_tokens"])
    lines = [line for line in answer.text.splitlines() if line]
    if not lines or lines[-1] != "data: [DONE]":
        return None
    usage = next(line for line in reversed(lines) if '"usage":{' in line)
    return int(json.loads(usage.removeprefix("data: "))["usage"]["completion_tokens"])


async def _attack(client: httpx.AsyncClient, turn: int) -> str:
    chat = {"model": "m", "messages": [{"role": "user", "content": "头痛"}], "ignore_eos": True}
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(12):
        deep = {"type": "object", "properties": {"a": deep}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "deep", "schema": deep}}
    kinds: tuple[tuple[str, str, bytes], ...] = (
        ("batch", "/v1/chat/completions", json.dumps({**chat, "n": 8, "max_tokens": 200}).encode()),
        ("tokenize", "/tokenize", json.dumps({"model": "m", "prompt": "头" * 120_000}).encode()),
        ("schema", "/v1/chat/completions", json.dumps({**chat, "response_format": form, "max_tokens": 200}).encode()),
        ("broken", "/v1/chat/completions", b"[" * 500_000),
        ("left", "/v1/chat/completions", json.dumps({**chat, "stream": True, "max_tokens": 400}).encode()),
    )
    kind, path, content = kinds[turn % len(kinds)]
    try:
        async with client.stream("POST", path, content=content, headers={"Content-Type": "application/json"}) as answer:
            async for _ in answer.aiter_bytes():
                if kind == "left":
                    break
            return f"{kind}_{answer.status_code}"
    except httpx.TransportError as error:
        return f"{kind}_{type(error).__name__}"


def _kill_an_engine() -> int:
    alive = [row for row in actors().values() if row["State"] == "ALIVE"]
    pid = next(int(row["Pid"]) for row in alive if row["Name"].startswith("SERVE_REPLICA::endpoint#engine:"))
    os.kill(pid, signal.SIGKILL)
    return pid


if __name__ == "__main__":
    main()
