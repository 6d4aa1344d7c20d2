"""A limit on the size of request bodies, counted as they arrive."""

from __future__ import annotations

from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.errors import ApiError


class BodyLimit:
    """ASGI middleware that answers 413 to a body of more than `most_bytes`, without reading it to its end."""

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self._app, self._most = app, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        parts: list[Message] = []
        size = 0
        while True:
            message = await receive()
            parts.append(message)
            size += len(message.get("body", b""))
            if size > self._most:
                refusal = ApiError(413, f"The body has more than {self._most:,} bytes, which is the limit.")
                await refusal.response()(scope, receive, send)
                return
            if message["type"] != "http.request" or not message.get("more_body", False):
                break

        async def replay() -> Any:
            return parts.pop(0) if parts else await receive()

        await self._app(scope, replay, send)
