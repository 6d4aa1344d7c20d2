"""Drawing until there are enough different things, with an end when there are not enough."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final, TypeVar

from data.tables import DataError

T = TypeVar("T")
FRUITLESS: Final = 2000  # draws in a row without anything new, after which there is taken to be nothing new


def draw_distinct(count: int, what: str, draw: Callable[[int], tuple[Hashable, T] | None]) -> list[T]:
    """Call `draw(number of things so far)` until it has given `count` things with different keys.

    Args:
        draw: gives a key and a thing, or None for a draw that does not count.

    Raises:
        DataError: there seem to be fewer; says how many `what` there were.
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
