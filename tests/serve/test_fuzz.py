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

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(3600)]

REQUESTS = int(os.environ.get("CHIMED_FUZZ", "400"))
AT_A_TIME = 16
PARTS = 4
KEY = "a-key-for-this-test"

CHAT = [{"role": "user", "content": "头痛怎么办？"}]
SCORED = [*CHAT, {"role": "assistant", "content": "多休息。"}]
SCHEMA = {"type": "object", "properties": {"科室": {"enum": ["内科", "外科"]}}, "required": ["科室"]}
LOOKUP = {"name": "lookup", "description": "科室", "parameters": SCHEMA}
CALLING = {
    "role": "assistant", "content": None,
    "tool_calls": [{"id": "a", "type": "function", "function": {"name": "lookup", "arguments": "{}"}}],
}  # fmt: skip
CALLED = {"type": "tool_use", "id": "a", "name": "lookup", "input": {"科室": "内科"}}
RESULT = {"type": "tool_result", "tool_use_id": "a", "content": "内科"}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "model": "tiny", "messages": CHAT, "max_tokens": 4, "temperature": 0.5, "top_p": 0.9, "n": 1, "stop": ["。"],
        "seed": 1, "stream": False, "logprobs": True, "top_logprobs": 2, "presence_penalty": 0.1,
    },
    "/v1/chat/completions?tools": {
        "model": "tiny", "messages": [*CHAT, CALLING, {"role": "tool", "tool_call_id": "a", "content": "内科"}],
        "tools": [{"type": "function", "function": LOOKUP}], "tool_choice": {"type": "function", "function": {"name": "lookup"}},
        "parallel_tool_calls": True, "max_completion_tokens": 4,
    },
    "/v1/chat/completions?form": {
        "model": "tiny", "messages": CHAT, "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
        "logit_bias": {"17": 5}, "allowed_token_ids": [17, 18], "bad_words": ["坏"], "stop_token_ids": [3], "min_tokens": 1,
        "max_tokens": 4, "return_token_ids": True, "stream_options": {"include_usage": True}, "metadata": {"a": "b"},
    },
    "/v1/completions": {
        "model": "tiny", "prompt": "头痛", "max_tokens": 4, "logprobs": 1, "echo": True, "stream": False, "suffix": None,
        "prompt_logprobs": 1, "structured_outputs": {"choice": ["是", "否"]},
    },
    "/v1/responses": {
        "model": "tiny", "input": [*CHAT, {"type": "function_call", "call_id": "a", "name": "lookup", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": "内科"}], "instructions": "简短", "max_output_tokens": 4,
        "tools": [{"type": "function", **LOOKUP}], "text": {"format": {"type": "text"}}, "store": False, "stream": False,
    },
    "/v1/messages": {
        "model": "tiny", "messages": [*CHAT, {"role": "assistant", "content": [CALLED]}, {"role": "user", "content": [RESULT]}],
        "max_tokens": 4, "system": [{"type": "text", "text": "简短"}], "stop_sequences": ["。"], "stream": False,
        "tools": [{"name": "lookup", "input_schema": SCHEMA}], "tool_choice": {"type": "auto"},
    },
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
    if path.startswith("/v1/") and "score" not in path and rng.random() < 0.2:
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
        here[rng.choice(["", "tools", "messages", "prompt", "input", "type", "\ud800", "__proto__", "a" * 300])] = (
            copy.deepcopy(rng.choice(NASTY))
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


async def _send(url: str, requests: list[dict[str, Any]]) -> tuple[list[int], list[str]]:
    """Statuses, 0 where the client went away on purpose, and what was answered as it must not be."""
    gate = asyncio.Semaphore(AT_A_TIME)
    rng = random.Random(1)
    faults: list[str] = []

    async def one(client: httpx.AsyncClient, request: dict[str, Any]) -> int:
        leaves = rng.random() < 0.03
        async with gate:
            try:
                answer = await asyncio.wait_for(client.request(**request), 0.05 if leaves else 120)
            except TimeoutError:
                if not leaves:
                    faults.append(f"no answer in 120 s to {request}")
                return 0
        status, kind = answer.status_code, answer.headers.get("content-type")
        if status >= 500 and status != 503:
            faults.append(f"{status} {answer.text} to {request}")
        elif status >= 400 and kind == "application/json" and answer.content:
            shape = {"type", "message"} if answer.url.path == "/v1/messages" else {"message", "type", "param", "code"}
            if set(answer.json()["error"]) != shape:
                faults.append(f"{status} {answer.text} to {request}")
        return status

    async with httpx.AsyncClient(base_url=url, timeout=None) as client:
        return await asyncio.gather(*(one(client, request) for request in requests)), faults


def resident_mib(pids: set[int]) -> float:
    """Memory that processes hold."""
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_broken_requests_are_refused_and_leave_the_engines_unharmed(endpoint: Any) -> None:
    rng = random.Random(0)
    before = endpoint.replica_pids()
    requests = [broken(rng) for _ in range(REQUESTS)]
    statuses: Counter[int] = Counter()
    faults: list[str] = []
    held = []
    for part in range(PARTS):
        answered, wrong = asyncio.run(_send(endpoint.url, requests[part::PARTS]))
        statuses.update(answered)
        faults += wrong
        held.append(resident_mib(before))
    grown = held[-1] - held[-2]
    print(f"{REQUESTS} requests, answers by status: {dict(sorted(statuses.items()))}")
    print("MiB that the replicas held after each part of them:", *(f"{mib:.0f}" for mib in held))
    assert not faults, "\n".join(faults)
    assert endpoint.replica_pids() == before
    endpoint.wait(lambda: all(endpoint.engine()["unfinished"] == 0 for _ in range(6)), "the engines to be idle", 30)
    assert grown < 64
    assert statuses[200] > REQUESTS / 20  # the fuzz is near enough to good requests to reach the engines
    assert statuses[400] > REQUESTS / 5
