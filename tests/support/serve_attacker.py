"""python serve_attacker.py URL KEY KIND: 20 requests at a time until stdin is closed; then prints the statuses seen."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter

import httpx

AT_A_TIME = 20
CHAT = "/v1/chat/completions"
ASK = [{"role": "user", "content": "头痛怎么办？"}]
# Method, path and body of each kind. The engine has 8 places, of which one key may have 4.
KINDS = {
    "tokenizes a megabyte": ("POST", "/tokenize", {"model": "tiny", "prompt": "头痛" * 170_000}),
    "tokenizes what it may": ("POST", "/tokenize", {"model": "tiny", "prompt": "头痛" * 4_000}),
    "sends prompts that are too long": (
        "POST", CHAT, {"model": "tiny", "messages": [{"role": "user", "content": "头痛" * 4_000}]}
    ),
    "asks whether it is ready": ("GET", "/ready", None),
    "generates": ("POST", CHAT, {"model": "tiny", "messages": ASK, "max_tokens": 200, "n": 4, "ignore_eos": True}),
}  # fmt: skip


async def attack(url: str, key: str, kind: str) -> Counter[int]:
    """Statuses of requests of `kind`."""
    statuses: Counter[int] = Counter()
    method, path, body = KINDS[kind]
    content = None if body is None else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}

    async def hammer(client: httpx.AsyncClient) -> None:
        while True:
            statuses[(await client.request(method, path, content=content)).status_code] += 1

    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=300) as client:
        hammers = [asyncio.create_task(hammer(client)) for _ in range(AT_A_TIME)]
        await asyncio.to_thread(sys.stdin.read)
        for task in hammers:
            task.cancel()
        await asyncio.gather(*hammers, return_exceptions=True)
    return statuses


if __name__ == "__main__":
    print(json.dumps(asyncio.run(attack(*sys.argv[1:]))))
