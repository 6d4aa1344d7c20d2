"""Draws until there are enough different items, and fails if no new ones appear."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final, TypeVar

from data.tables import DataError

T = TypeVar("T")
FRUITLESS: Final = 2000  # consecutive draws without a new item after which drawing stops


def draw_distinct(count: int, what: str, draw: Callable[[int], tuple[Hashable, T] | None]) -> list[T]:
    """Calls `draw(number of items so far)` until it has returned `count` items with different keys.

    Args:
        count: the number of items.
        what: what the items are, for messages.
        draw: returns a key and an item, or None for a draw that does not count.

    Raises:
        DataError: `FRUITLESS` consecutive draws gave no new item; the message gives the number of items found.
    """
    things: dict[Hashable, T] = {}
    fruitless = 0
    while len(things) < count:
        drawn = draw(len(things))
        if drawn is None or drawn[0] in things:
            fruitless += 1
            if fruitless == FRUITLESS:
                raise DataError(f"only {len(things)} different {what} can be made, not {count}; ask for fewer")
        else:
            things[drawn[0]] = drawn[1]
            fruitless = 0
    return list(things.values())
