from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from serve.gateway.calls import Call
from serve.gateway.cpu_share import Turns
from serve.keys import Key


class Work:
    """An application that takes `seconds` for each request, and notes who is at work when."""

    def __init__(self, seconds: float, *, waits_for_engine: bool = False) -> None:
        self.seconds, self.waits_for_engine = seconds, waits_for_engine
        self.at_work: dict[str, int] = {}
        self.most_at_work: dict[str, int] = {}
        self.done: dict[str, int] = {}
        self.app = Turns(self._work)

    async def _work(self, scope: Any, receive: Any, send: Any) -> None:
        call = scope["state"]["call"]
        name = call.holder.name if call.holder else "stranger"
        self.at_work[name] = self.at_work.get(name, 0) + 1
        self.most_at_work[name] = max(self.most_at_work.get(name, 0), self.at_work[name])
        await asyncio.sleep(self.seconds)
        self.at_work[name] -= 1
        if self.waits_for_engine:
            call.end_turn()
            await asyncio.sleep(0.2)
        self.done[name] = self.done.get(name, 0) + 1

    async def request(self, name: str) -> float:
        begun = time.monotonic()
        call = Call("id", holder=Key(name) if name else None)
        await self.app({"type": "http", "state": {"call": call}}, _nothing, _nothing)
        return time.monotonic() - begun

    async def hammer(self, name: str) -> None:
        while True:
            await self.request(name)


async def _nothing(*_: Any) -> Any:
    raise AssertionError("not called")


async def attacked(work: Work, attacker: str, at_a_time: int, then: Callable[[], Any]) -> Any:
    hammers = [asyncio.create_task(work.hammer(attacker)) for _ in range(at_a_time)]
    await asyncio.sleep(0.05)
    result = await then()
    for task in hammers:
        task.cancel()
    await asyncio.gather(*hammers, return_exceptions=True)
    return result


def test_one_request_of_each_key_is_worked_on_at_a_time() -> None:
    work = Work(0.01)

    async def ward() -> list[float]:
        return [await work.request("ward") for _ in range(5)]

    seconds = asyncio.run(attacked(work, "attacker", 50, ward))
    assert work.most_at_work == {"attacker": 1, "ward": 1}
    assert max(seconds[:1]) < 0.05  # nobody of the 50 is before it


def test_a_key_pauses_while_another_is_active_and_strangers_count_as_one() -> None:
    for attacker in ("attacker", ""):
        alone, shared = Work(0.01), Work(0.01)
        asyncio.run(attacked(alone, attacker, 20, lambda: asyncio.sleep(0.5)))

        async def with_ward(work: Work = shared) -> None:
            await work.request("ward")
            await asyncio.sleep(0.5)

        asyncio.run(attacked(shared, attacker, 20, with_ward))
        name = attacker or "stranger"
        assert alone.most_at_work == {name: 1}
        assert shared.done[name] < alone.done[name] / 2


def test_waiting_for_an_engine_lets_the_next_begin() -> None:
    work = Work(0.001, waits_for_engine=True)

    async def ten() -> float:
        begun = time.monotonic()
        await asyncio.gather(*(work.request("a") for _ in range(10)))
        return time.monotonic() - begun

    assert asyncio.run(ten()) < 1.0
    assert work.done == {"a": 10}


def test_who_gives_up_waiting_leaves_nothing_behind() -> None:
    work = Work(0.05)

    async def run() -> None:
        first, second = asyncio.create_task(work.request("a")), asyncio.create_task(work.request("a"))
        await asyncio.sleep(0.01)
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        await asyncio.wait_for(work.request("a"), 1)
        assert work.app._holders["a"].waiting == 0
        assert not work.app._holders["a"].lock.locked()

    asyncio.run(run())
    assert work.done == {"a": 2}


def test_refusals_pause_their_key_while_another_is_active() -> None:
    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 413, "headers": []})

    async def sent(_: Any) -> None:
        pass

    async def run(other: str | None) -> float:
        app = Turns(refuse)

        async def request(name: str) -> None:
            call = Call("id", holder=Key(name) if name else None)
            await app({"type": "http", "state": {"call": call}}, _nothing, sent)

        if other is not None:
            await request(other)
        begun = time.monotonic()
        for _ in range(6):
            await request("attacker")
        return time.monotonic() - begun

    assert asyncio.run(run(None)) < 0.2
    assert asyncio.run(run("")) < 0.2  # a stranger, such as a probe
    assert asyncio.run(run("ward")) > 0.4
