"""python -m benchmarks.serving --model DIR: compares the endpoint with bare `vllm serve`, in one run on the same cores.

Both receive the same streamed chats, `--concurrent` at a time. They are warmed up, and measured alternately, so that
other load on the machine affects both. Prints the results as JSON: the tokens per second of each, their ratio, and the
time to first token.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.serving.servers import MODEL, SERVERS
from configs.errors import one_line_errors
from storage.paths import require_dir

PROG = "python -m benchmarks.serving"
QUESTIONS = ("高血压吃什么药？", "糖尿病有什么症状？", "头痛挂什么科？", "肺炎要做哪些检查？", "失眠平时要注意什么？")


@dataclass(frozen=True)
class Load:
    """The load, the same for every server: number of requests, requests at a time, and tokens per response."""

    requests: int
    concurrent: int
    tokens: int


def main() -> None:
    """Measures and prints the results as JSON."""
    parser = argparse.ArgumentParser(prog=PROG, description=__doc__)
    parser.add_argument("--model", required=True, metavar="DIR", help="model folder in Hugging Face format")
    parser.add_argument("--requests", type=int, default=256, help="chats of one turn (default: %(default)s)")
    parser.add_argument("--concurrent", type=int, default=64, help="chats at a time (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each response (default: %(default)s)")
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
    """Measures the servers alternately, one at a time.

    Returns each server's medians over its turns; None if all of its turns failed.
    """
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in SERVERS}
    for turn in range(turns):
        for name, server in SERVERS.items():
            print(f"turn {turn + 1} of {turns}: {name}", file=sys.stderr)
            try:
                with server(folder) as url:
                    asyncio.run(_drive(url, Load(load.concurrent, load.concurrent, 8)))
                    runs[name].append(asyncio.run(_drive(url, load)))
            except (RuntimeError, TimeoutError, httpx.HTTPError) as error:
                # The results of the other server are still reported.
                print(f"turn {turn + 1}: {name} failed: {error!r}", file=sys.stderr)
                runs[name].append({"failed": repr(error)})
    medians = {name: _medians([run for run in each if "failed" not in run]) for name, each in runs.items()}
    result: dict[str, Any] = {**medians, "throughput_ratio": None, "added_first_token_s": None, "turns": runs}
    if (ours := medians["endpoint"]) and (theirs := medians["vllm"]):
        result["throughput_ratio"] = ours["tokens_per_second"] / theirs["tokens_per_second"]
        result["added_first_token_s"] = ours["first_token_s"] - theirs["first_token_s"]
    return result


def _medians(runs: list[dict[str, Any]]) -> dict[str, float] | None:
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]} if runs else None


async def _drive(url: str, load: Load) -> dict[str, float]:
    """Sends `load` to the server at `url`; returns its throughput and median time to first token."""
    gate = asyncio.Semaphore(load.concurrent)
    first: list[float] = []
    tokens = 0

    async def one(client: httpx.AsyncClient, index: int) -> None:
        nonlocal tokens
        body = {
            "model": MODEL,
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


if __name__ == "__main__":
    main()
