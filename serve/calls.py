"""The life of one request: who asks, what it may, what it cost, and its line in the log.

Neither log nor metrics hold a word of a prompt or an answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from dataclasses import dataclass, field

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.metrics import SERVE_QUEUE, SERVE_REQUESTS, SERVE_TIME_TO_FIRST_TOKEN, SERVE_TOKENS
from serve.keys import Keyring
from serve.limits import RateLimits

logger = logging.getLogger("ray.serve")

GONE = 499  # the client went away before its answer's end


@dataclass
class Call:
    """A request on its way; the routes fill in what they learn."""

    id: str
    started: float = field(default_factory=time.monotonic)
    holder: str = ""
    model: str = ""
    first_token_s: float | None = None
    prompt_tokens: int = 0
    answer_tokens: int = 0

    def spoke(self) -> None:
        """Marks the answer's first tokens."""
        if self.first_token_s is None:
            self.first_token_s = time.monotonic() - self.started

    def count(self, prompt_tokens: int, answer_tokens: int) -> None:
        """Adds tokens read and written."""
        self.prompt_tokens += prompt_tokens
        self.answer_tokens += answer_tokens


class Gate:
    """Lets a request in. A dependency of every route that costs something."""

    def __init__(self, keyring: Keyring, limits: RateLimits) -> None:
        self._keyring, self._limits = keyring, limits
        self._under_way = 0

    def __call__(self, request: Request) -> Call:
        """Checks the key and the key's limits.

        Raises:
            ApiError: 401, 403 or 429.
        """
        call: Call = request.state.call
        client = request.client.host if request.client else None
        call.holder = self._keyring.holder(request.headers.get("authorization"), client)
        self._limits.admit(call.holder)
        return call

    def charge(self, call: Call) -> None:
        """Takes what the call has cost from its key's allowance."""
        self._limits.charge(call.holder, call.prompt_tokens + call.answer_tokens)

    def change(self, by: int = 0) -> None:
        """Counts requests under way and tells Prometheus, which forgets what it is not told again every few seconds."""
        self._under_way += by
        SERVE_QUEUE.set(self._under_way)


class Accounts:
    """ASGI middleware around everything: gives each request its `Call` and, when it has ended, accounts for it."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app, self._gate = app, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id")  # from Serve's proxy, which also tells the client
        call = Call(given or uuid.uuid4().hex)
        scope.setdefault("state", {})["call"] = call
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if not given:
                    MutableHeaders(scope=message)["x-request-id"] = call.id
            await send(message)

        self._gate.change(+1)
        try:
            await self._app(scope, receive, noting)
        except asyncio.CancelledError:
            status = GONE
            raise
        finally:
            self._gate.change(-1)
            self._gate.charge(call)
            route = getattr(scope.get("route"), "path", "other")  # not the path, of which there are endlessly many
            self._report(call, scope["method"], route, status)

    @staticmethod
    def _report(call: Call, method: str, route: str, status: int) -> None:
        seconds = time.monotonic() - call.started
        if method == "POST" or status >= 400:
            figures = {
                "request": call.id,
                "route": route,
                "key": call.holder,
                "model": call.model,
                "status": status,
                "prompt_tokens": call.prompt_tokens,
                "answer_tokens": call.answer_tokens,
                "seconds": round(seconds, 4),
                "first_token_seconds": call.first_token_s and round(call.first_token_s, 4),
            }
            logger.info("request", extra={"ray_serve_extra_fields": figures})
        SERVE_REQUESTS.inc(route=route, model=call.model, status=str(status))
        if call.first_token_s is not None:
            SERVE_TIME_TO_FIRST_TOKEN.observe(call.first_token_s)
        for kind, tokens in (("prompt", call.prompt_tokens), ("completion", call.answer_tokens)):
            if tokens:
                SERVE_TOKENS.inc(tokens, model=call.model, kind=kind)
