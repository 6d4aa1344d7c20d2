"""Shares the gateway's CPU time between keys: parsing and checking take time even for rejected requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.gateway.calls import Call

STRANGERS = ""
# While another key is active, a key pauses after each request for PAUSES times the request's duration, at most
# MOST_PAUSE_S.
PAUSES, MOST_PAUSE_S = 3.0, 1.0
REFUSAL_PAUSE_S = 0.1  # shortest pause after a rejected request, whose body the proxy may have received in vain
ACTIVE_S = 10.0  # a key counts as active for this long after its last request


@dataclass
class _Holder:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    last: float = 0.0
    paused_until: float = 0.0


class Turns:
    """ASGI middleware that processes one request of each key at a time, until it waits for an engine or ends.

    All requests without a key count as one key.
    """

    def __init__(self, app: ASGIApp, clock: Callable[[], float] = time.monotonic) -> None:
        self._app, self.now = app, clock
        self._holders: dict[str, _Holder] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        call: Call = scope["state"]["call"]
        name = call.holder.name if call.holder else STRANGERS
        turn = _Turn(self, name)
        await turn.begin()
        call.end_turn = turn.end

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                self.pause(name, REFUSAL_PAUSE_S)
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            turn.end()

    def holder(self, name: str) -> _Holder:
        """Returns the state of one key and marks it active; drops the states of inactive keys."""
        now = self.now()
        if name not in self._holders:
            for other, holder in list(self._holders.items()):
                if not holder.waiting and holder.last + ACTIVE_S < now:
                    del self._holders[other]
            self._holders[name] = _Holder()
        self._holders[name].last = now
        return self._holders[name]

    def pause(self, name: str, seconds: float) -> None:
        """Delays the next request of a key if another key is active.

        Requests without a key, such as probes, do not count as active.

        Args:
            name: the key's name; empty for requests without a key.
            seconds: the delay, capped at `MOST_PAUSE_S`.
        """
        now = self.now()
        if any(
            other not in (name, STRANGERS) and holder.last + ACTIVE_S > now for other, holder in self._holders.items()
        ):
            holder = self.holder(name)
            holder.paused_until = max(holder.paused_until, now + min(MOST_PAUSE_S, seconds))


class _Turn:
    def __init__(self, turns: Turns, name: str) -> None:
        self._turns, self._name = turns, name
        self._holder = turns.holder(name)
        self._begun: float | None = None

    async def begin(self) -> None:
        """Waits until the key's earlier requests have ended their turns and its pause is over."""
        self._holder.waiting += 1
        try:
            await self._holder.lock.acquire()
        except asyncio.CancelledError:
            self._holder.waiting -= 1
            raise
        try:
            await asyncio.sleep(max(0.0, self._holder.paused_until - self._turns.now()))
        except asyncio.CancelledError:
            self._release()
            raise
        self._begun = self._turns.now()

    def end(self) -> None:
        """Lets the key's next request start, after a pause if other keys are active. Later calls do nothing."""
        if self._begun is None:
            return
        took_s, self._begun = self._turns.now() - self._begun, None
        self._turns.pause(self._name, PAUSES * took_s)
        self._release()

    def _release(self) -> None:
        self._holder.waiting -= 1
        self._holder.lock.release()
