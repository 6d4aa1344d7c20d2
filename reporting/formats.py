"""Formats of numbers, times, and untrusted text in reports."""

from __future__ import annotations

import math
import re
import time

_CHINESE = re.compile(r"[㐀-鿿豈-﫿]")
_CONTROL = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {127: 0x2421}


def format_number(value: float | None, *, share: bool = False) -> str:
    """Formats a value with three or four significant digits, or as an integer: 1,624; 0.7937; 7.39e-6.

    Args:
        share: whether the value is a fraction, shown as a percentage such as 12.3%.
    """
    if value is None or not math.isfinite(value):
        return "not finite"
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
