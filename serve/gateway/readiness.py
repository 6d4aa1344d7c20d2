"""Readiness check: whether every model has a responsive engine. The result is cached and shared by all callers."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from serve.errors import ApiError
from serve.gateway.backend import Backend
from serve.replies import EngineState

READY_S = 5.0
KEPT_S = 2.0


@dataclass(frozen=True)
class _Found:
    at: float
    states: dict[str, EngineState]
    error: ApiError | None


class Readiness:
    """A readiness check that polls the engines at most once every `kept_s` seconds, however many callers there are."""

    def __init__(self, backend: Backend, kept_s: float = KEPT_S) -> None:
        self._backend, self._kept_s = backend, kept_s
        self._found: _Found | None = None
        self._asking = asyncio.Lock()

    async def states(self, *, fresh: bool = False) -> dict[str, EngineState]:
        """Returns the state of one engine of each model.

        Args:
            fresh: whether the states must not be older than this call.

        Raises:
            ApiError: 503 if a model has no engine that responds within `READY_S` seconds.
        """
        oldest = time.monotonic() - (0 if fresh else self._kept_s)
        async with self._asking:
            if self._found is None or self._found.at < oldest:
                self._found = await self._ask()
        if self._found.error is not None:
            raise self._found.error
        return self._found.states

    async def _ask(self) -> _Found:
        try:
            states, error = await self._backend.ready(READY_S), None
        except ApiError as refusal:
            states, error = {}, refusal
        return _Found(time.monotonic(), states, error)
