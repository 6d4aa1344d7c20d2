"""Limits on the size of a request body and on the time to receive it, enforced while it is received."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.errors import ApiError

MOST_DIGITS = 18


class BodyLimit:
    """ASGI middleware that returns 413 for a body over `most_bytes`, and 408 for one that takes over `seconds`."""

    def __init__(self, app: ASGIApp, most_bytes: int, seconds: float) -> None:
        self._app, self._most, self._seconds = app, most_bytes, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            length = Headers(scope=scope).get("content-length", "0")
            if not (length.isdecimal() and len(length) <= MOST_DIGITS and int(length) <= self._most):
                raise self._too_large()
            scope["state"]["call"].end_turn()  # a slow client must not block the key's other requests
            parts = await self._read(receive)
        except ApiError as refusal:
            response = refusal.response(scope["path"])
            response.headers["Connection"] = "close"  # the rest of the body stays unread
            await response(scope, receive, send)
            return

        async def replay() -> Any:
            return parts.pop(0) if parts else await receive()

        await self._app(scope, replay, send)

    async def _read(self, receive: Receive) -> list[Message]:
        parts: list[Message] = []
        size, deadline = 0, time.monotonic() + self._seconds
        while True:
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                raise ApiError(408, f"The body did not arrive within the limit of {self._seconds:g} s.") from None
            parts.append(message)
            size += len(message.get("body", b""))
            if size > self._most:
                raise self._too_large()
            if message["type"] != "http.request" or not message.get("more_body", False):
                return parts

    def _too_large(self) -> ApiError:
        return ApiError(413, f"The body exceeds the limit of {self._most:,} bytes.")
