"""Divides the gateway's own process between keys: parsing and checking requests costs time even if all are refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.calls import Call

STRANGERS = ""
# While another key is active, a key pauses after each request for so many times as long as it took, at most MOST_PAUSE_S.
PAUSES, MOST_PAUSE_S = 3.0, 1.0
ACTIVE_S = 10.0  # for so long after its last request a key is active


@dataclass
class _Holder:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    last: float = 0.0


class Turns:
    """ASGI middleware: of each key, one request at a time is worked on until it waits for an engine or has ended.

    Those who send no key count as one.
    """

    def __init__(self, app: ASGIApp, clock: Callable[[], float] = time.monotonic) -> None:
        self._app, self._clock = app, clock
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
        try:
            await self._app(scope, receive, send)
        finally:
            turn.end()

    def holder(self, name: str) -> _Holder:
        """The state of one key; those of keys that are no longer active are dropped."""
        now = self._clock()
        if name not in self._holders:
            for other, holder in list(self._holders.items()):
                if not holder.waiting and holder.last + ACTIVE_S < now:
                    del self._holders[other]
            self._holders[name] = _Holder()
        self._holders[name].last = now
        return self._holders[name]

    def pause_s(self, name: str, took_s: float) -> float:
        """How long a key pauses after a request that took `took_s`."""
        now = self._clock()
        others = any(other != name and holder.last + ACTIVE_S > now for other, holder in self._holders.items())
        return min(MOST_PAUSE_S, PAUSES * took_s) if others else 0.0


class _Turn:
    def __init__(self, turns: Turns, name: str) -> None:
        self._turns, self._name = turns, name
        self._holder = turns.holder(name)
        self._begun: float | None = None

    async def begin(self) -> None:
        """Waits for the key's earlier requests."""
        self._holder.waiting += 1
        try:
            await self._holder.lock.acquire()
        except asyncio.CancelledError:
            self._holder.waiting -= 1
            raise
        self._begun = time.monotonic()

    def end(self) -> None:
        """Lets the key's next request begin, after a pause if other keys are active. A second call does nothing."""
        if self._begun is None:
            return
        pause_s = self._turns.pause_s(self._name, time.monotonic() - self._begun)
        self._begun = None
        if pause_s > 0:
            asyncio.get_running_loop().call_later(pause_s, self._release)
        else:
            self._release()

    def _release(self) -> None:
        self._holder.waiting -= 1
        self._holder.lock.release()
