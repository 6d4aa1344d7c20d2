"""Accounting of each request: its key, its reserved and used tokens, its log record, and its metrics.

Neither the log nor the metrics contain text of a prompt or a response.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.metrics import SERVE_QUEUE, SERVE_REQUESTS, SERVE_TIME_TO_FIRST_TOKEN, SERVE_TOKENS
from serve.gateway.cost import Cost
from serve.gateway.limits import RateLimits, Reservation
from serve.keys import Key, Keyring

logger = logging.getLogger("ray.serve")

GONE = 499  # the client closed the connection before the response was complete
TIMED_OUT = 504
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


@dataclass
class Call:
    """The record of a running request, filled in by the middleware and the routes."""

    id: str
    client: str = ""
    started: float = field(default_factory=time.monotonic)
    holder: Key | None = None
    model: str = ""
    first_token_s: float | None = None
    prompt_tokens: int = 0
    response_tokens: int = 0
    sent_to_engine: bool = False
    end_turn: Callable[[], None] = lambda: None  # lets the gateway process the key's next request
    failed: int | None = None  # status of an error that occurred after the response had started
    _reservation: Reservation | None = None
    _cost: Cost | None = None

    @property
    def key(self) -> Key:
        """The key with which the request was admitted."""
        assert self.holder is not None, "the route is not behind the guard"
        return self.holder

    def spoke(self) -> None:
        """Records the time to the first token, at the first call."""
        if self.first_token_s is None:
            self.first_token_s = time.monotonic() - self.started

    def reserve(self, reservation: Reservation, cost: Cost) -> None:
        """Stores the reservation of the key's tokens until `settle`."""
        self._reservation, self._cost = reservation, cost

    def count(self, prompt_tokens: int, response_tokens: int) -> None:
        """Updates the token counts so far, and returns reserved tokens that the request can no longer need.

        Args:
            prompt_tokens: prompt tokens of all sequences; 0 if not known yet.
            response_tokens: generated tokens of all sequences.
        """
        self.prompt_tokens = max(self.prompt_tokens, prompt_tokens)
        self.response_tokens = max(self.response_tokens, response_tokens)
        if self._reservation is not None and self._cost is not None and self.prompt_tokens:
            used = self.prompt_tokens + self.response_tokens
            needed = self.prompt_tokens + max(self._cost.response, self.response_tokens)
            self._reservation.change(max(used, min(self._reservation.tokens, needed)))

    def settle(self, status: int) -> bool:
        """Charges the key for the tokens used.

        Args:
            status: the HTTP status of the response.

        Returns:
            Whether the charge is an estimate, because the request ended before the engine had counted its prompt.
        """
        estimated = False
        if self._cost is not None and self.sent_to_engine and not self.prompt_tokens and status in (GONE, TIMED_OUT):
            self.prompt_tokens, estimated = self._cost.least_prompt, True
        if self._reservation is not None:
            self._reservation.change(self.prompt_tokens + self.response_tokens)
            self._reservation = None
        return estimated


class Gate:
    """The endpoint's keys and rate limits, and the number of running requests."""

    def __init__(self, keyring: Keyring, limits: RateLimits) -> None:
        self.keyring, self.limits = keyring, limits
        self._under_way = 0

    def __call__(self, request: Request) -> Call:
        """Returns the call of a request that the guard has admitted; the routes use it as a FastAPI dependency."""
        call: Call = request.state.call
        return call

    def identify(self, call: Call, authorization: str | None) -> None:
        """Sets the call's key.

        Raises:
            ApiError: 401 for a missing, wrong, or expired key.
        """
        call.holder = self.keyring.holder(authorization)

    def change(self, by: int = 0) -> None:
        """Changes and exports the number of running requests. The gauge expires unless it is set every few seconds."""
        self._under_way += by
        SERVE_QUEUE.set(self._under_way)


class Accounts:
    """The outermost ASGI middleware, which creates each request's `Call`.

    When the request ends, it charges its tokens, logs it, and records metrics.
    """

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app, self._gate = app, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id")  # set by Serve's proxy, which also returns it to the client
        usable = given is not None and REQUEST_ID.fullmatch(given) is not None
        client = scope.get("client")
        call = Call(given if given and usable else uuid.uuid4().hex, client[0] if client else "")
        scope.setdefault("state", {})["call"] = call
        status, complete, gone = 500, False, False

        async def noting(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                if given is None:
                    MutableHeaders(scope=message)["x-request-id"] = call.id
            await send(message)
            complete = complete or (message["type"] == "http.response.body" and not message.get("more_body", False))

        async def watching() -> Message:
            nonlocal gone
            message = await receive()
            gone = gone or (message["type"] == "http.disconnect" and not complete)
            return message

        self._gate.change(+1)
        try:
            await self._app(scope, watching, noting)
        except asyncio.CancelledError:
            gone = not complete
            raise
        finally:
            self._gate.change(-1)
            status = call.failed or (GONE if gone and not complete else status)
            estimated = call.settle(status)
            route = getattr(scope.get("route"), "path", "other")  # the path itself would create unbounded label values
            self._report(call, scope["method"], route, status, estimated)

    @staticmethod
    def _report(call: Call, method: str, route: str, status: int, estimated: bool) -> None:
        seconds = time.monotonic() - call.started
        if method == "POST" or status >= 400:
            figures = {
                "request": call.id,
                "route": route,
                "key": call.holder.name if call.holder else "",
                "client": call.client,
                "model": call.model,
                "status": status,
                "prompt_tokens": call.prompt_tokens,
                "response_tokens": call.response_tokens,
                "estimated": estimated,
                "seconds": round(seconds, 4),
                "first_token_seconds": call.first_token_s and round(call.first_token_s, 4),
            }
            logger.info("request", extra={"ray_serve_extra_fields": figures})
        SERVE_REQUESTS.inc(route=route, model=call.model, status=str(status))
        if call.first_token_s is not None:
            SERVE_TIME_TO_FIRST_TOKEN.observe(call.first_token_s)
        for kind, tokens in (("prompt", call.prompt_tokens), ("completion", call.response_tokens)):
            if tokens:
                SERVE_TOKENS.inc(tokens, model=call.model, kind=kind)
