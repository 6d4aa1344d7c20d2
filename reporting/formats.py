"""Formats of numbers, times, and untrusted text in reports."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_CHINESE = re.compile(r"[㐀-鿿豈-﫿]")
_CONTROL = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {127: 0x2421}


@dataclass(frozen=True)
class Unit:
    """A unit of measurement: the symbol that is shown, and how many units of the logged values it consists of."""

    symbol: str = ""
    size: float = 1.0


_GIB = Unit("GiB", 2.0**30)
_DURATIONS = (Unit("h", 3600.0), Unit("min", 60.0), Unit("s"))  # the largest first


def display_unit(logged: str, values: Iterable[float]) -> Unit:
    """Returns the unit in which to show values.

    Args:
        logged: unit of the values. `bytes` are shown in GiB, `seconds` in s, min, or h; other units are kept.
        values: finite values; the largest decides the unit of durations, at least 2 min or 2 h.
    """
    if logged == "bytes":
        return _GIB
    if logged == "seconds":
        largest = max(values, default=0.0)
        return next((unit for unit in _DURATIONS if largest >= 2 * unit.size), _DURATIONS[-1])
    return Unit(logged)


def format_seconds(seconds: float | None) -> str:
    """Formats a duration in seconds as s, min, or h: 95 s, 12.5 min."""
    unit = display_unit("seconds", [seconds or 0.0])
    return format_number(None if seconds is None else seconds / unit.size, unit=unit.symbol)


def format_number(value: float | None, *, share: bool = False, unit: str = "") -> str:
    """Formats a value with three or four significant digits, or as an integer: 1,624; 0.7937; 7.39e-6.

    Args:
        share: whether the value is a fraction, shown as a percentage such as 12.3%.
        unit: unit to append; empty if there is none.
    """
    if value is None or not math.isfinite(value):
        return "not finite"
    if unit:
        return f"{format_number(value, share=share)} {unit}"
    if share:
        return f"{format_number(float(f'{100 * value:.3g}'))}%"
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-3:
        digits, _, power = f"{value:.2e}".partition("e")
        text = f"{float(digits):g}e{int(power)}"
    elif size >= 1000:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.4g}"
    return text.replace("-", "\N{MINUS SIGN}")


def format_setting(value: object) -> str:
    """Formats the value of a setting for readers, not as Python source: `not set`, `none`, `yes`, `a, b`, `a: 1`."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return str(value) if math.isfinite(value) else "not finite"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {format_setting(one)}" for key, one in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(format_setting, value)) or "none"
    return str(value)


def format_time(seconds: float | None) -> str:
    """Formats Unix seconds as a date and time in UTC, to the minute; None stands for the current time."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def readable(text: str) -> str:
    """Replaces control characters, which browsers drop or interpret, with their Unicode control pictures.

    Tabs and newlines are kept.
    """
    return text.translate(_CONTROL)


def is_chinese(text: str) -> bool:
    """Returns whether the text contains Han characters, which look wrong in a Japanese font and need a Chinese one."""
    return _CHINESE.search(text) is not None
