"""A backend that counts instead of generating, and requests to the HTTP interface without a server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI

from serve.config import LimitsConfig
from serve.gateway.calls import Gate
from serve.gateway.limits import RateLimits
from serve.gateway.routes import Models, make_app
from serve.keys import Key, Keyring, _digest
from serve.replies import EngineRequest, EngineState, Part, Refusal, Reply, Whole

CHAT = "/v1/chat/completions"
ASK = [{"role": "user", "content": "头痛怎么办？"}]
PROMPT_TOKENS = 10
MODEL = "ppo"


class CountingBackend:
    """Writes `max_tokens` tokens, one every `step_s` seconds, and says how many so far with each."""

    def __init__(self, step_s: float = 0.0) -> None:
        self.step_s = step_s
        self.written = 0
        self.at_engine = 0
        self.most_at_engine = 0
        self.asked: list[EngineRequest] = []
        self.polls = 0

    async def answer(self, model: str, request: EngineRequest) -> AsyncGenerator[Reply, None]:
        self.asked.append(request)
        if request.kind in ("tokenize", "detokenize"):
            yield Whole("{}", len(request.body.get("tokens") or request.body.get("prompt") or ""), 0)
            return
        self.at_engine += 1
        self.most_at_engine = max(self.most_at_engine, self.at_engine)
        streams, tokens = request.body.get("stream"), request.body.get("max_tokens") or 20
        try:
            for count in range(1, tokens + 1):
                await asyncio.sleep(self.step_s)
                self.written += 1
                yield Part(f"data: {count}\n\n" if streams else "", PROMPT_TOKENS, count)
            if not streams:
                yield Whole("{}", PROMPT_TOKENS, tokens)
        finally:
            self.at_engine -= 1

    async def score(self, conversations: list[list[dict[str, str]]], cut_off: list[bool]) -> dict[str, Any] | Refusal:
        return {"scores": [0.0 for _ in conversations], "tokens": 7}

    async def ready(self, timeout_s: float) -> dict[str, EngineState]:
        self.polls += 1
        return {MODEL: EngineState("/models/b", self.at_engine)}

    async def metrics(self) -> str:
        return ""


def key(name: str, **settings: Any) -> Key:
    """A key whose text is `NAME` and sixteen `x`."""
    return Key(name, _digest(text_of(name)), **settings)


def text_of(name: str) -> str:
    return name + "x" * 16


@dataclass
class Interface:
    """The HTTP interface over a backend, with a client of its own."""

    backend: CountingBackend
    keys: Sequence[Key] = ()
    limits: dict[str, Any] = field(default_factory=dict)
    slots: int = 64
    context: int = 512
    client: tuple[str, int] = ("127.0.0.1", 1234)

    def __post_init__(self) -> None:
        config = LimitsConfig(**self.limits)
        self.gate = Gate(Keyring(self.keys), RateLimits(config))
        models = Models({MODEL: self.context}, "judge", slots={MODEL: self.slots})
        self.app: FastAPI = make_app(self.backend, self.gate, models, config)

    def http(self, key_name: str = "") -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {text_of(key_name)}"} if key_name else {}
        transport = httpx.ASGITransport(self.app, client=self.client, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://localhost:8000", headers=headers, timeout=60)

    async def leave(self, path: str, body: Any, after: int, key_name: str = "", seconds: float = 0.2) -> list[str]:
        """Sends a request and disconnects after `after` events of its response, or with 0 after `seconds`.

        Returns:
            The events that came.
        """
        events: list[str] = []
        left = asyncio.Event()
        sent = False
        content = json.dumps(body).encode()
        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        if key_name:
            headers.append((b"authorization", f"Bearer {text_of(key_name)}".encode()))

        async def receive() -> dict[str, Any]:
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": content, "more_body": False}
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body" and message["body"]:
                events.append(message["body"].decode())
                if len(events) == after:
                    left.set()
            await asyncio.sleep(0)

        if not after:
            asyncio.get_running_loop().call_later(seconds, left.set)
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "POST",
            "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
            "headers": headers, "client": self.client, "server": ("127.0.0.1", 8000),
        }  # fmt: skip
        task = asyncio.ensure_future(self.app(scope, receive, send))
        if not after:  # Serve cancels the replica's task of a client that has left
            await left.wait()
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0.05)
        return events
