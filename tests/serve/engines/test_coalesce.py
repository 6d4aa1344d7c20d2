from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from serve.engines.coalesce import coalesce


class Source:
    """Numbers, one every `pause_s`; fails instead of number `fails_at`."""

    def __init__(self, count: int, pause_s: float = 0.0, fails_at: int | None = None) -> None:
        self.count, self.pause_s, self.fails_at = count, pause_s, fails_at
        self.closed = False

    async def items(self) -> AsyncGenerator[int, None]:
        try:
            for number in range(self.count):
                await asyncio.sleep(self.pause_s)
                if number == self.fails_at:
                    raise ValueError(f"no {number}")
                yield number
        finally:
            self.closed = True


async def batches(source: Source, interval_s: float) -> list[list[int]]:
    return [batch async for batch in coalesce(source.items(), interval_s)]


def test_the_first_comes_alone_and_the_rest_together() -> None:
    found = asyncio.run(batches(Source(20, pause_s=0.002), interval_s=10.0))
    assert found == [[0], list(range(1, 20))]


def test_order_and_completeness() -> None:
    for interval_s in (0.0, 0.003):
        found = asyncio.run(batches(Source(30, pause_s=0.001), interval_s))
        assert [number for batch in found for number in batch] == list(range(30))
        assert all(found)
        assert found[0] == [0]


def test_nothing_in_nothing_out() -> None:
    assert asyncio.run(batches(Source(0), 1.0)) == []


def test_a_failure_comes_after_what_was_before_it() -> None:
    seen: list[int] = []

    async def collect() -> None:
        async for batch in coalesce(Source(9, fails_at=5).items(), 0.01):
            seen.extend(batch)

    with pytest.raises(ValueError, match="no 5"):
        asyncio.run(collect())
    assert seen == [0, 1, 2, 3, 4]


def test_closing_closes_the_source() -> None:
    async def leave() -> Source:
        source = Source(1000, pause_s=0.001)
        async with aclosing(coalesce(source.items(), 0.01)) as stream:
            await anext(stream)
        return source

    assert asyncio.run(leave()).closed
