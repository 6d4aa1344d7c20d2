"""Events of a stream sent together: the first at once, later ones every so often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

Item = TypeVar("Item")


async def coalesce(source: AsyncGenerator[Item, None], interval_s: float) -> AsyncGenerator[list[Item], None]:
    """Items of `source`, in order, in lists: what came first, alone; then what came in each `interval_s` seconds.

    Each list costs a message through two processes, each item only its bytes. Whoever reads sees the first word as soon
    as it is there. An exception of `source` is raised after the items before it; closing this closes `source`.
    """
    waiting: list[Item] = []
    arrived = asyncio.Event()

    async def read() -> None:
        try:
            async for item in source:
                waiting.append(item)
                arrived.set()
        finally:
            arrived.set()

    reader = asyncio.create_task(read())
    try:
        while True:
            await arrived.wait()
            arrived.clear()
            if waiting:
                batch = waiting.copy()
                waiting.clear()
                yield batch
                await asyncio.wait({reader}, timeout=interval_s)  # no longer than the answer goes on
            if reader.done() and not waiting:
                reader.result()
                return
            if waiting:
                arrived.set()
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        await source.aclose()
