"""One key attacks the whole endpoint; limits hold, and another key is served as if nothing were."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

CHAT = "/v1/chat/completions"
ASK = [{"role": "user", "content": "头痛怎么办？"}]
ATTACKER, WARD, LIMITED = (f"{name}-key-for-this-test" for name in ("attacker", "ward", "limited"))
LIMIT = 1000


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": ASK, "ignore_eos": True, **more}


def http(endpoint: Any, key: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=200)
    return httpx.AsyncClient(
        base_url=endpoint.url, headers={"authorization": f"Bearer {key}"}, timeout=120, limits=limits
    )


def request_log(endpoint: Any, key: str) -> list[dict[str, Any]]:
    """The lines of the gateway's request log about a key."""
    from ray._private.worker import global_worker

    folder = Path(global_worker.node.get_session_dir_path()) / "logs" / "serve"
    lines = [line for file in folder.glob("replica_endpoint_gateway_*.log") for line in file.read_text().splitlines()]
    rows = [json.loads(line) for line in lines if f'"key": "{key}"' in line]
    return [row for row in rows if row["message"] == "request"]


def test_a_token_limit_holds_against_simultaneous_and_abandoned_requests(endpoint: Any) -> None:
    async def attack() -> tuple[list[httpx.Response], int]:
        async with http(endpoint, LIMITED) as client:
            begun = time.monotonic()
            responses = await asyncio.gather(*(client.post(CHAT, json=chat(max_tokens=100)) for _ in range(60)))
            events = 0
            while time.monotonic() < begun + 20:  # streams that are abandoned at their first event
                async with client.stream("POST", CHAT, json=chat(max_tokens=100, stream=True)) as stream:
                    async for _ in stream.aiter_text():
                        events += stream.status_code == 200
                        break
                await asyncio.sleep(0.05)
            return responses, events

    begun = time.monotonic()
    responses, events = asyncio.run(attack())
    statuses = Counter(response.status_code for response in responses)
    assert set(statuses) == {200, 429}
    assert statuses[200] >= 3
    assert all(1 <= int(r.headers["retry-after"]) <= 60 for r in responses if r.status_code == 429)
    endpoint.wait(lambda: any(row["status"] == 499 for row in request_log(endpoint, "limited")), "the log", 15)
    rows = request_log(endpoint, "limited")
    used = sum(row["prompt_tokens"] + row["answer_tokens"] for row in rows)
    assert used <= LIMIT * (1 + (time.monotonic() - begun) / 60)
    abandoned = [row for row in rows if row["status"] == 499]
    assert len(abandoned) == events
    assert all(row["prompt_tokens"] > 0 for row in abandoned)
    print(f"{dict(statuses)}, {events} streams abandoned, {used} tokens")


async def latency(client: httpx.AsyncClient, requests: int = 15) -> float:
    """The median seconds of a short response."""
    seconds = []
    for _ in range(requests):
        begun = time.monotonic()
        response = await client.post(CHAT, json=chat(max_tokens=16))
        assert response.status_code == 200, response.text
        seconds.append(time.monotonic() - begun)
    return median(seconds)


async def under_attack(
    endpoint: Any, attack: Callable[[httpx.AsyncClient], Awaitable[int]], at_a_time: int
) -> tuple[float, float, Counter[int]]:
    """Latencies of the ward's key before and during an attack, and the statuses that the attacker saw."""
    statuses: Counter[int] = Counter()
    async with http(endpoint, ATTACKER) as attacker, http(endpoint, WARD) as ward:
        await latency(ward, 5)
        quiet = await latency(ward)

        async def hammer() -> None:
            while True:
                statuses[await attack(attacker)] += 1

        hammers = [asyncio.create_task(hammer()) for _ in range(at_a_time)]
        await asyncio.sleep(1.0)
        attacked = await latency(ward)
        for task in hammers:
            task.cancel()
        await asyncio.gather(*hammers, return_exceptions=True)
    return quiet, attacked, statuses


async def tokenizes(client: httpx.AsyncClient) -> int:
    return (await client.post("/tokenize", json={"model": "tiny", "prompt": "头痛" * 170_000})).status_code


async def tokenizes_all_it_may(client: httpx.AsyncClient) -> int:
    return (await client.post("/tokenize", json={"model": "tiny", "prompt": "头痛" * 4_000})).status_code


async def generates(client: httpx.AsyncClient) -> int:
    return (await client.post(CHAT, json=chat(max_tokens=200, n=16))).status_code


async def asks_whether_it_is_ready(client: httpx.AsyncClient) -> int:
    return (await client.get("/ready")).status_code


@pytest.mark.parametrize("attack", [tokenizes, tokenizes_all_it_may, asks_whether_it_is_ready, generates])
def test_another_key_s_latency_under_attack(
    attack: Callable[[httpx.AsyncClient], Awaitable[int]], endpoint: Any
) -> None:
    before = endpoint.replica_pids()
    quiet, attacked, statuses = asyncio.run(under_attack(endpoint, attack, at_a_time=20))
    print(f"{attack.__name__}: {quiet * 1000:.0f} ms quiet, {attacked * 1000:.0f} ms attacked, {dict(statuses)}")
    assert attacked <= 2 * quiet
    assert endpoint.replica_pids() == before


def test_replicas_do_not_hold_the_keys(endpoint: Any) -> None:
    for pid in endpoint.replica_pids():
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"key-for-this-test" not in environment
        assert b"CHIMED_API_KEYS=\0" in environment
