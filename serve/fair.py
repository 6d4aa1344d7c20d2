"""Shares a model's engines between keys: weighted fair queueing over each key's running sequences."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from serve.errors import ApiError
from serve.keys import Key

RETRY_S = 2.0
MOST_REST_S = 1.0


@dataclass(frozen=True, eq=False)
class _Waiter:
    number: int
    key: Key
    slots: int
    granted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class FairQueue:
    """Slots for sequences. A free slot goes to the waiting key with the fewest slots in use relative to its weight."""

    def __init__(self, slots: int, waiting: int, key_share: Callable[[], float]) -> None:
        """Initializes the queue with all slots free.

        Args:
            slots: number of sequences that the engines of the model decode concurrently.
            waiting: maximum number of queued requests. While keys share the engines, one key may fill at most half of
                the queue.
            key_share: returns the maximum fraction of the slots that one key may use, even if no other key is waiting.
                The rest stays free, so that another key does not have to wait for a long response to end.
        """
        self._free, self._slots, self._most_waiting, self._key_share = slots, slots, waiting, key_share
        self._used: dict[str, int] = defaultdict(int)
        self._waiting: dict[str, deque[_Waiter]] = defaultdict(deque)
        self._numbers = itertools.count()

    @asynccontextmanager
    async def slots(self, key: Key, count: int, rest: float = 0.0) -> AsyncIterator[None]:
        """Waits for `count` slots, capped at one key's limit, and holds them while the block runs.

        Args:
            key: the key of the request.
            count: number of slots.
            rest: if keys share the engines, the slots are released `rest` times the block's duration after its end, but
                at most `MOST_REST_S` seconds later.

        Raises:
            ApiError: 503 if too many requests are waiting; 429 if too many requests of this key are waiting.
        """
        waiter = self._enqueue(key, min(count, self._most()))
        try:
            await waiter.granted
        except asyncio.CancelledError:
            self._withdraw(waiter)
            raise
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            yield
        finally:
            if rest and self._key_share() < 1:
                loop.call_later(min(MOST_REST_S, rest * (loop.time() - begun)), self._release, waiter)
            else:
                self._release(waiter)

    def _most(self) -> int:
        return max(1, int(self._slots * self._key_share()))

    def _enqueue(self, key: Key, count: int) -> _Waiter:
        waiter = _Waiter(next(self._numbers), key, count)
        queue = self._waiting[key.name]
        queue.append(waiter)
        self._grant()
        if not waiter.granted.done():
            everybody = sum(map(len, self._waiting.values()))
            own = max(1, self._most_waiting // 2) if self._key_share() < 1 else self._most_waiting
            refusal = (
                ApiError(503, "All engines are busy and the queue is full: try again later.", retry_after_s=RETRY_S)
                if everybody > self._most_waiting
                else ApiError(
                    429,
                    f"{own} requests of this key are queued: wait for one to finish before sending another.",
                    code="too_many_waiting",
                    retry_after_s=RETRY_S,
                )
                if len(queue) > own
                else None
            )
            if refusal is not None:
                self._withdraw(waiter)
                raise refusal
        return waiter

    def _grant(self) -> None:
        while True:
            self._forget_cancelled()
            heads = [queue[0] for queue in self._waiting.values()]
            within = [head for head in heads if self._used.get(head.key.name, 0) + head.slots <= self._most()]
            if not within:
                return
            head = min(within, key=lambda head: (self._used.get(head.key.name, 0) / head.key.weight, head.number))
            if head.slots > self._free:
                return  # otherwise smaller requests could starve it
            self._dequeue(head)
            self._free -= head.slots
            self._used[head.key.name] += head.slots
            head.granted.set_result(None)

    def _forget_cancelled(self) -> None:
        """Removes waiters whose task has been cancelled but has not run since."""
        for queue in list(self._waiting.values()):
            for waiter in [waiter for waiter in queue if waiter.granted.cancelled()]:
                self._dequeue(waiter)

    def _withdraw(self, waiter: _Waiter) -> None:
        """Cancels a wait; releases its slots if they were granted concurrently."""
        if waiter.granted.done() and not waiter.granted.cancelled():
            self._release(waiter)
        else:
            self._dequeue(waiter)
            self._grant()  # it may have blocked a smaller request

    def _release(self, waiter: _Waiter) -> None:
        self._free += waiter.slots
        self._used[waiter.key.name] -= waiter.slots
        if not self._used[waiter.key.name]:
            del self._used[waiter.key.name]
        self._grant()

    def _dequeue(self, waiter: _Waiter) -> None:
        queue = self._waiting.get(waiter.key.name, deque())
        if waiter in queue:
            queue.remove(waiter)
        if not queue:
            self._waiting.pop(waiter.key.name, None)
