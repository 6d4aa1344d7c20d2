"""Sharing of the engines between keys, with an attacker."""

from __future__ import annotations

import asyncio
import time
from statistics import median
from typing import Any

import pytest
from serve_fakes import ASK, CHAT, MODEL, CountingBackend, Interface, key

from serve.errors import ApiError
from serve.fair import FairQueue
from serve.keys import Key

A, B = Key("a"), Key("b")


class Order:
    """Work that holds slots until it is told to end, and the order in which it got them."""

    def __init__(self, slots: int, waiting: int = 100, share: float = 1.0) -> None:
        self.queue = FairQueue(slots, waiting, lambda: share)
        self.begun: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self, name: str, holder: Key, slots: int = 1) -> None:
        self.ends[name] = asyncio.Event()

        async def work() -> None:
            async with self.queue.slots(holder, slots):
                self.begun.append(name)
                await self.ends[name].wait()

        self.tasks[name] = asyncio.create_task(work())
        await asyncio.sleep(0)

    async def end(self, *names: str) -> None:
        for name in names:
            self.ends[name].set()
            await self.tasks[name]
        await asyncio.sleep(0)


def test_a_free_slot_goes_to_the_key_that_has_the_fewest() -> None:
    async def run() -> list[str]:
        order = Order(slots=2)
        for index in range(4):
            await order.start(f"a{index}", A)
        await order.start("b0", B)
        await order.start("b1", B)
        await order.end("a0")
        await order.end("a1")
        await order.end("b0")
        return order.begun

    assert asyncio.run(run()) == ["a0", "a1", "b0", "a2", "b1"]


def test_weights_divide_the_slots() -> None:
    async def run() -> list[str]:
        order = Order(slots=8)
        heavy = Key("heavy", weight=3.0)
        for index in range(8):
            await order.start(f"first{index}", Key("first"))
        for index in range(8):
            await order.start(f"a{index}", A)
            await order.start(f"h{index}", heavy)
        for index in range(8):
            await order.end(f"first{index}")
        return order.begun[8:]

    begun = asyncio.run(run())
    assert sum(name.startswith("h") for name in begun) == 6
    assert sum(name.startswith("a") for name in begun) == 2


def test_one_key_leaves_slots_for_others_and_waits_in_order() -> None:
    async def run() -> list[str]:
        order = Order(slots=4, share=0.5)
        for index in range(4):
            await order.start(f"a{index}", A)
        await order.start("b0", B)
        assert order.begun == ["a0", "a1", "b0"]
        await order.start("b1", B, slots=9)  # is given the two that one key may have, when both are there
        await order.end("b0")
        return order.begun

    assert asyncio.run(run()) == ["a0", "a1", "b0", "b1"]


def test_a_large_request_is_not_overtaken_forever() -> None:
    async def run() -> list[str]:
        order = Order(slots=2)
        await order.start("a0", A)
        await order.start("large", B, slots=2)
        await order.start("c0", Key("c"))
        await order.end("a0")
        return order.begun

    assert asyncio.run(run()) == ["a0", "large"]


def test_the_queue_is_bounded_for_all_and_for_each() -> None:
    async def run() -> tuple[ApiError, ApiError]:
        order = Order(slots=2, waiting=4, share=0.5)
        for index in range(3):
            await order.start(f"a{index}", A)  # one at the engine, two wait: half of the queue
        refusals = []
        with pytest.raises(ApiError) as refused:
            async with order.queue.slots(A, 1):
                pass
        refusals.append(refused.value)
        for index in range(3):
            await order.start(f"b{index}", B)
        with pytest.raises(ApiError) as refused:
            async with order.queue.slots(Key("c"), 1):
                pass
        refusals.append(refused.value)
        await order.end("a0", "a1", "a2", "b0", "b1", "b2")
        await order.start("c1", Key("c"))
        assert order.begun[-1] == "c1"
        return refusals[0], refusals[1]

    of_one, of_all = asyncio.run(run())
    assert (of_one.status, of_one.code) == (429, "too_many_waiting")
    assert of_one.message.startswith("2 requests of this key are queued")
    assert (of_all.status, of_all.retry_after_s) == (503, 2.0)


def test_who_gives_up_leaves_nothing_behind() -> None:
    async def run() -> None:
        order = Order(slots=1)
        await order.start("a0", A)
        await order.start("large", B, slots=1)
        await order.start("c", Key("c"))
        order.tasks["large"].cancel()
        await asyncio.gather(order.tasks["large"], return_exceptions=True)
        await order.end("a0")
        assert order.begun == ["a0", "c"]
        order.tasks["c"].cancel()  # at work
        await asyncio.gather(order.tasks["c"], return_exceptions=True)
        await order.start("d", Key("d"))
        await order.start("e", Key("e"))
        order.ends["d"].set()
        await asyncio.sleep(0)
        order.tasks["e"].cancel()  # at the moment when it is its turn
        await asyncio.gather(*order.tasks.values(), return_exceptions=True)
        await order.start("f", Key("f"))
        assert order.begun[-1] == "f"
        assert order.queue._free == 0
        assert dict(order.queue._waiting) == {}
        assert dict(order.queue._used) == {"f": 1}

    asyncio.run(run())


def test_many_that_give_up_at_once_do_not_keep_others_waiting() -> None:
    async def run() -> None:
        order = Order(slots=2, share=0.5)
        for index in range(5):
            await order.start(f"a{index}", A)
        await order.start("b0", B)
        await order.start("b1", B)
        for index in range(5):
            order.tasks[f"a{index}"].cancel()  # the first of them frees a slot while the others are being cancelled
        await asyncio.gather(*(order.tasks[f"a{index}"] for index in range(5)), return_exceptions=True)
        await order.end("b0", "b1")
        assert order.begun == ["a0", "b0", "b1"]
        assert order.queue._free == 2
        assert dict(order.queue._waiting) == {}
        assert dict(order.queue._used) == {}

    asyncio.run(run())


@pytest.mark.parametrize(("share", "seconds"), [(1.0, 0.1), (0.5, 0.3)])
def test_where_keys_share_a_slot_may_rest(share: float, seconds: float) -> None:
    async def run() -> float:
        queue = FairQueue(2, 10, lambda: share)
        begun = time.monotonic()
        for _ in range(2):
            async with queue.slots(A, 2, rest=4.0):
                await asyncio.sleep(0.05)
        return time.monotonic() - begun

    taken = asyncio.run(run())
    assert seconds <= taken < seconds + 0.15


def chat(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": ASK, **more}


@pytest.mark.parametrize("attack", [chat(max_tokens=400), chat(max_tokens=100, n=8), chat(max_tokens=400, stream=True)])
def test_under_attack_another_key_is_served_as_when_it_is_quiet(attack: dict[str, Any]) -> None:
    interface = Interface(CountingBackend(step_s=0.01), [key("attacker"), key("ward")], {"queued": 64}, slots=8)

    async def latencies(http: Any) -> float:
        found = []
        for _ in range(5):
            begun = time.monotonic()
            response = await http.post(CHAT, json=chat(max_tokens=20))
            assert response.status_code == 200
            found.append(time.monotonic() - begun)
        return median(found)

    async def run() -> tuple[float, float, int]:
        async with interface.http("attacker") as attacker, interface.http("ward") as ward:
            quiet = await latencies(ward)

            async def hammer() -> None:
                while True:
                    await attacker.post(CHAT, json=attack)

            hammers = [asyncio.create_task(hammer()) for _ in range(30)]
            await asyncio.sleep(0.3)
            under_attack = await latencies(ward)
            for task in hammers:
                task.cancel()
            await asyncio.gather(*hammers, return_exceptions=True)
            return quiet, under_attack, interface.backend.most_at_engine

    quiet, under_attack, at_engine = asyncio.run(run())
    assert under_attack <= 2 * quiet + 0.5  # without shares and turns, 15 s
    assert at_engine <= 5  # the attacker's half of the slots and one of the other's
