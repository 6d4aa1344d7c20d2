"""Batches the events of a stream: the first is sent immediately, later ones at intervals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

Item = TypeVar("Item")


async def coalesce(source: AsyncGenerator[Item, None], interval_s: float) -> AsyncGenerator[list[Item], None]:
    """Yields the items of `source`, in order, in lists: the first arrivals immediately, then one list per interval.

    Each list is one message through two processes, so the cost per message is shared by its items; the first token is
    not delayed. An exception of `source` is raised after the items before it. Closing this generator closes `source`.

    Args:
        source: the items.
        interval_s: seconds between lists.
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
                await asyncio.wait({reader}, timeout=interval_s)  # returns early if the source ends
            if reader.done() and not waiting:
                reader.result()
                return
            if waiting:
                arrived.set()
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        await source.aclose()
