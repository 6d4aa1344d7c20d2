"""Thousands of broken requests: none may bring the endpoint down, or get an answer that blames the server.

CHIMED_FUZZ sets how many; `make test` sends a few hundred.
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

REQUESTS = int(os.environ.get("CHIMED_FUZZ", "400"))
AT_A_TIME = 16
KEY = "a-key-for-this-test"

CHAT = [{"role": "user", "content": "头痛怎么办？"}]
SCORED = [*CHAT, {"role": "assistant", "content": "多休息。"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "model": "tiny", "messages": CHAT, "max_tokens": 4, "temperature": 0.5, "top_p": 0.9, "n": 1, "stop": ["。"],
        "seed": 1, "stream": False, "logprobs": True, "top_logprobs": 2, "presence_penalty": 0.1,
    },
    "/v1/completions": {"model": "tiny", "prompt": "头痛", "max_tokens": 4, "logprobs": 1, "echo": True, "stream": False},
    "/v1/score": {"model": "judge", "conversations": [SCORED, SCORED], "cut_off": [False, True]},
    "/tokenize": {"model": "tiny", "prompt": "头痛", "return_token_strs": True},
    "/detokenize": {"model": "tiny", "tokens": [5, 6, 7]},
}  # fmt: skip
NASTY: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, "", " ", "0", "x" * 3000, "头" * 600,
    "\x00", "\ud800", "\u202e", "🙂", "[human]:", "</s>", "%s%n", "{{7*7}}", "../../etc/passwd", [], {}, [[]], [None], [1, 2, 3],
    [10**9], [[1], [2]], ["a", 1], {"a": {"b": []}}, [{"role": "user"}], [{"role": "user", "content": 5}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}],
]  # fmt: skip
METHODS = ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD")


def broken(rng: random.Random) -> dict[str, Any]:
    """A request as httpx takes it: a good one with one to three things wrong, sometimes none."""
    path = rng.choice(list(BODIES))
    body: Any = json.loads(json.dumps(BODIES[path]))
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    request: dict[str, Any] = {"method": "POST", "url": path}
    for _ in range(rng.randint(0, 3)):
        _change(rng, body)
    if path.endswith("completions") and rng.random() < 0.2:
        body["stream"] = True
    content = json.dumps(body).encode()
    kind = rng.random()
    if kind < 0.15:
        content = _damage(rng, content)
    elif kind < 0.2:
        content = rng.randbytes(rng.randint(0, 200))
    elif kind < 0.23:
        request["method"] = rng.choice(METHODS)
    elif kind < 0.26:
        request["url"] = rng.choice(
            ["/v1/models/" + "x" * 2000, "/v1/nothing", "//", "/v1/models/%00", "/page/../app.py", "/%2e%2e/x"]
        )
    elif kind < 0.29:
        headers["authorization"] = rng.choice(
            ["", "Bearer", "Basic abc", "Bearer " + "x" * 5000, "Bearer wrong-key-wrong-key"]
        )
    elif kind < 0.32:
        headers["content-type"] = rng.choice(
            ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
        )
    return {**request, "headers": headers, "content": content}


def _change(rng: random.Random, body: Any) -> None:
    """Changes, removes or adds something at a random depth of a JSON value."""
    here = body
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys:
            return
        key = rng.choice(keys)
        if not isinstance(here[key], (dict, list)) or rng.random() < 0.5:
            break
        here = here[key]
    action = rng.random()
    if action < 0.7:
        here[key] = copy.deepcopy(rng.choice(NASTY))
    elif action < 0.85:
        del here[key]
    elif isinstance(here, dict):
        here[rng.choice(["", "tools", "messages", "prompt", "\ud800", "__proto__", "a" * 300])] = copy.deepcopy(
            rng.choice(NASTY)
        )


def _damage(rng: random.Random, content: bytes) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(damaged))
        if rng.random() < 0.5:
            damaged[at] = rng.randrange(256)
        else:
            del damaged[at : at + rng.randint(1, 5)]
        if not damaged:
            break
    return bytes(damaged)


async def _send(url: str, requests: list[dict[str, Any]]) -> list[int]:
    """Statuses; 0 where the client went away on purpose."""
    gate = asyncio.Semaphore(AT_A_TIME)
    rng = random.Random(1)

    async def one(client: httpx.AsyncClient, request: dict[str, Any]) -> int:
        leaves = rng.random() < 0.03
        async with gate:
            try:
                answer = await asyncio.wait_for(client.request(**request), 0.05 if leaves else 120)
            except TimeoutError:
                assert leaves, f"no answer in 120 s to {request}"
                return 0
        if answer.status_code >= 400 and answer.headers.get("content-type") == "application/json" and answer.content:
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}, answer.text
        assert answer.status_code < 500 or answer.status_code == 503, f"{answer.status_code} {answer.text} to {request}"
        return answer.status_code

    async with httpx.AsyncClient(base_url=url, timeout=None) as client:
        return await asyncio.gather(*(one(client, request) for request in requests))


def resident_mib(pids: set[int]) -> float:
    """Memory that processes hold."""
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_broken_requests_are_refused_and_leave_the_engines_unharmed(endpoint: Any) -> None:
    rng = random.Random(0)
    before = endpoint.replica_pids()
    requests = [broken(rng) for _ in range(REQUESTS)]
    statuses = Counter(asyncio.run(_send(endpoint.url, requests[: REQUESTS // 2])))
    held = resident_mib(before)
    statuses += Counter(asyncio.run(_send(endpoint.url, requests[REQUESTS // 2 :])))
    grown = resident_mib(before) - held
    print(f"{REQUESTS} requests, answers by status: {dict(sorted(statuses.items()))}")
    print(f"the replicas held {held:.0f} MiB after half of them, {grown:+.0f} MiB after the other half")
    assert endpoint.replica_pids() == before
    endpoint.wait(lambda: all(endpoint.engine()["unfinished"] == 0 for _ in range(6)), "the engines to be idle", 30)
    assert grown < 64
    assert statuses[200] > REQUESTS / 20  # the fuzz is near enough to good requests to reach the engines
    assert statuses[400] > REQUESTS / 5
