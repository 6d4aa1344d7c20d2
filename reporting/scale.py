"""Axes: the visible range of an axis and its ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

_NICE = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Scale:
    """The range of an axis from `low` to `high`, with `low < high`; both positive if it is logarithmic."""

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """Returns the position of a value: 0 at `low`, 1 at `high`."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def percent(self, value: float) -> float:
        """Returns the position of a value in percent of the axis."""
        return round(100 * self.at(value), 2)

    def ticks(self, wanted: int = 4) -> list[float]:
        """Returns about `wanted` round values on the axis."""
        if self.log:
            return self._log_ticks(wanted)
        step = nice_step((self.high - self.low) / wanted)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [float(f"{number * step:.12g}") for number in range(first, last + 1)]

    def _log_ticks(self, wanted: int) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        every = max(1, math.ceil((last - first) / (wanted + 1)))
        decades = [10.0**power for power in range(first, last + 1, every)]
        inside = [tick for tick in decades if self.low <= tick <= self.high]
        if len(inside) >= 3:
            return inside
        finer = [factor * decade for decade in decades for factor in (1, 2, 5)]
        return [float(f"{tick:.12g}") for tick in finer if self.low <= tick <= self.high]


def scale_of(values: Iterable[float], *, log_from: float = math.inf, share: bool = False) -> Scale:
    """Returns a scale that shows all `values` with a small margin; it starts at 0 if the smallest is near 0.

    Args:
        values: finite values.
        share: whether values are usually fractions, so that the axis does not extend beyond 1 unless a value does.
        log_from: the scale is logarithmic if all values are positive and the largest is at least this many times the
            smallest.
    """
    known = list(values)
    low, high = min(known, default=0.0), max(known, default=1.0)
    if low > 0 and high / low >= log_from:
        room = (high / low) ** 0.05
        return Scale(low / room, high * room, log=True)
    size = max(abs(low), abs(high))
    constant = high - low <= 1e-9 * size
    if share and low >= 0 and high <= 1 and (constant or low < 0.4 * high):
        return Scale(0.0, 1.0 if constant else min(1.05 * high, 1.0))
    if constant:
        around = size / 2 or 1.0
        return Scale(0.0 if low == 0 else low - around, high + around)
    room = (high - low) / 20
    from_zero = 0 <= low < 0.4 * high
    return Scale(0.0 if from_zero else low - room, 1.0 if share and high <= 1 < high + room else high + room)


def nice_step(rough: float) -> float:
    """Returns the smallest number of the form 1, 2, 2.5, or 5 times a power of ten that is at least `rough` > 0."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in _NICE if factor * power >= rough * (1 - 1e-9))
