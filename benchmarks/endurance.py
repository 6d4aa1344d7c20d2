"""python -m benchmarks.endurance --url URL --model NAME: chats without pause, and what became of each.

While it runs, kill engines and roll out weights: whole answers are asked again twice, as OpenAI's client does; streams that
break off are counted apart, since half an answer cannot be asked for again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections import Counter

import httpx

RETRIES = 2
QUESTIONS = ("高血压吃什么药？", "糖尿病有什么症状？", "头痛挂什么科？", "肺炎要做哪些检查？", "失眠平时要注意什么？")


def main() -> None:
    """Drives the load and prints a line a quarter of a minute, then the counts as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endurance", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the endpoint (default: %(default)s)")
    parser.add_argument("--model", required=True, help="the model's name")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: %(default)s)")
    parser.add_argument(
        "--concurrent", type=int, default=64, help="chats at a time, every fourth whole (default: %(default)s)"
    )
    parser.add_argument("--tokens", type=int, default=48, help="longest answer (default: %(default)s)")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    asyncio.run(_drive(options, counts))
    print(json.dumps(dict(sorted(counts.items())), indent=1))


async def _drive(options: argparse.Namespace, counts: Counter[str]) -> None:
    end = time.monotonic() + options.minutes * 60
    key = os.environ.get("CHIMED_API_KEYS", "none").split(",")[0]
    headers = {"Authorization": f"Bearer {key}"}
    limits = httpx.Limits(max_connections=options.concurrent + 1)
    async with httpx.AsyncClient(base_url=options.url, headers=headers, timeout=120, limits=limits) as client:

        async def chats(worker: int) -> None:
            for turn in range(10**9):
                if time.monotonic() > end:
                    return
                body = {
                    "model": options.model,
                    "messages": [{"role": "user", "content": QUESTIONS[(worker + turn) % len(QUESTIONS)]}],
                    "max_tokens": options.tokens,
                }
                counts[await (_whole if worker % 4 == 0 else _streamed)(client, body)] += 1

        async def report() -> None:
            while time.monotonic() < end:
                await asyncio.sleep(15)
                left = max(0, round(end - time.monotonic()))
                print(
                    f"eta {left // 60}:{left % 60:02d}  " + "  ".join(f"{k} {v}" for k, v in sorted(counts.items())),
                    flush=True,
                )

        await asyncio.gather(report(), *(chats(worker) for worker in range(options.concurrent)))


async def _whole(client: httpx.AsyncClient, body: dict[str, object]) -> str:
    status = "unreachable"
    for attempt in range(RETRIES + 1):
        try:
            answer = await client.post("/v1/chat/completions", json=body)
        except httpx.TransportError as error:
            status = type(error).__name__
        else:
            if answer.status_code == 200:
                return "whole" if attempt == 0 else "whole_after_retry"
            status = str(answer.status_code)
        await asyncio.sleep(0.5 * 2**attempt)
    return f"whole_failed_{status}"


async def _streamed(client: httpx.AsyncClient, body: dict[str, object]) -> str:
    last = ""
    try:
        async with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as answer:
            if answer.status_code != 200:
                return f"stream_refused_{answer.status_code}"
            async for text in answer.aiter_text():
                last = (last + text)[-500:]
    except httpx.TransportError as error:
        return f"stream_broken_{type(error).__name__}"
    return "stream" if last.rstrip().endswith("data: [DONE]") else "stream_ended_with_error"


if __name__ == "__main__":
    main()
