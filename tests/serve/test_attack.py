"""One key attacks the whole endpoint; limits hold, and another key is served as if nothing were."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import pytest
import serve_attacker

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(420)]

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
    served = lambda: [row for row in request_log(endpoint, "limited") if row["status"] in (200, 499)]  # noqa: E731
    endpoint.wait(lambda: len(served()) == statuses[200] + events, "a line in the log for each", 15)
    used = sum(row["prompt_tokens"] + row["response_tokens"] for row in served())
    assert used <= LIMIT * (1 + (time.monotonic() - begun) / 60)
    assert all(row["prompt_tokens"] > 0 for row in served())
    counted = [row for row in served() if row["first_token_seconds"] is not None]
    assert not any(row["estimated"] for row in counted)
    assert sum(row["status"] == 499 for row in served()) > events / 2  # the others had ended before they were noticed
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


@contextmanager
def attacker(endpoint: Any, kind: str) -> Iterator[dict[int, int]]:
    """Runs an attack in a process of its own while the block runs; afterwards the statuses that it saw."""
    command = [sys.executable, serve_attacker.__file__, endpoint.url, ATTACKER, kind]
    statuses: dict[int, int] = {}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield statuses
        out, _ = process.communicate()
        statuses.update({int(status): count for status, count in json.loads(out).items()})


@pytest.mark.parametrize("kind", list(serve_attacker.KINDS))
def test_another_key_s_latency_under_attack(kind: str, endpoint: Any) -> None:
    before = endpoint.replica_pids()

    async def measure(requests: int) -> float:
        async with http(endpoint, WARD) as ward:
            return await latency(ward, requests)

    asyncio.run(measure(5))
    quiet = asyncio.run(measure(20))
    with attacker(endpoint, kind) as statuses:
        time.sleep(3.0)
        attacked = asyncio.run(measure(20))
    print(f"{kind}: {quiet * 1000:.0f} ms quiet, {attacked * 1000:.0f} ms attacked, {statuses}")
    assert sum(statuses.values()) > 0
    # Twice is what is asked for; the second is for machines that others use, too. Without fair queues it takes up to minutes.
    assert attacked <= 2 * quiet + 1.0
    assert endpoint.replica_pids() == before


def test_replicas_do_not_hold_the_keys(endpoint: Any) -> None:
    for pid in endpoint.replica_pids():
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"key-for-this-test" not in environment
        assert b"CHIMED_API_KEYS=\0" in environment
