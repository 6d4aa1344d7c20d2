"""Admission of a parsed request to an engine: reserves tokens, then waits in the model's fair queue."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

from serve.config import LimitsConfig
from serve.fair import FairQueue
from serve.gateway.backend import Backend
from serve.gateway.calls import Call, Gate
from serve.gateway.cost import Cost, cost_of
from serve.keys import Key
from serve.replies import EngineRequest, Refusal, Reply, Share

SLOTS = 64  # default for a model without a configured number
TEXT, TEXT_KINDS, TEXT_SLOTS, TEXT_REST = "text of", ("tokenize", "detokenize"), 2, 3.0


class Admission:
    """The endpoint's limits, and the queue of every model."""

    def __init__(self, gate: Gate, config: LimitsConfig, contexts: Mapping[str, int], slots: Mapping[str, int]) -> None:
        self._gate, self._config, self._contexts, self._slots = gate, config, contexts, slots
        self._queues: dict[str, FairQueue] = {}

    async def replies(self, backend: Backend, request: EngineRequest, call: Call) -> AsyncGenerator[Reply, None]:
        """Yields an engine's replies and counts their tokens on `call`.

        Raises:
            ApiError: 400, 429, or 503 before the request reaches an engine; also every error of the backend.
        """
        context = self._contexts[call.model]
        cost = cost_of(request, context, self._config.sequences, self._config.characters_per_token)
        is_text = request.kind in TEXT_KINDS
        share = Share(call.key.name, call.key.weight, self._key_share(), cost.sequences)
        request = replace(request, share=share, body=request.body if is_text else self._salted(request.body, call.key))
        async with self.admitted(call, cost, is_text=is_text), aclosing(backend.answer(call.model, request)) as replies:
            async for reply in replies:
                if isinstance(reply, Refusal):
                    call.sent_to_engine = False
                else:
                    call.count(reply.prompt_tokens, reply.response_tokens)
                yield reply

    def _salted(self, body: dict[str, Any], key: Key) -> dict[str, Any]:
        """Returns the body with a prefix-cache salt that is unique to the key (key names contain no slash)."""
        if self._config.shared_prefixes or not self._gate.keyring.is_shared:
            return body
        return {**body, "cache_salt": f"{key.name}/{body.get('cache_salt', '')}"}

    @asynccontextmanager
    async def admitted(self, call: Call, cost: Cost, *, is_text: bool = False) -> AsyncIterator[None]:
        """Reserves tokens of the call's key, and holds slots of its model while the block runs.

        Args:
            is_text: whether the request only tokenizes or detokenizes. Such requests share one thread, and CPU cores
                with the engine, but use none of its sequences, so they have a separate queue.

        Raises:
            ApiError: 400 or 429 from the key's rate limit; 503 or 429 if too many requests are waiting.
        """
        call.reserve(self._gate.limits.reserve(call.key, cost.least, cost.most), cost)
        call.end_turn()
        queue = self._queue(f"{TEXT} {call.model}" if is_text else call.model)
        async with queue.slots(call.key, cost.sequences, TEXT_REST if is_text else 0.0):
            call.sent_to_engine = True
            yield

    def _queue(self, name: str) -> FairQueue:
        if name not in self._queues:
            slots = TEXT_SLOTS if name.startswith(f"{TEXT} ") else self._slots.get(name, SLOTS)
            self._queues[name] = FairQueue(slots, self._config.queued, self._key_share)
        return self._queues[name]

    def _key_share(self) -> float:
        return self._config.key_share if self._gate.keyring.is_shared else 1.0
