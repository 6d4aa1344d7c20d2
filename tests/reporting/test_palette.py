"""Contrast of the colors in page.css, in both color schemes, by the formula of WCAG 2.2."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

from reporting.charts import COLORS

ROOT = Path(__file__).resolve().parents[2]
TEXT = ("ink", "soft", "accent", "red")
GROUNDS = ("ground", "surface", "quiet")


def palette(file: str) -> dict[str, tuple[str, str]]:
    """The colors that a style sheet defines, by name: light and dark."""
    style = (ROOT / file).read_text(encoding="utf-8")
    return {name: (light, dark) for name, light, dark in re.findall(r"--([\w-]+): light-dark\((#\w+), (#\w+)\)", style)}


def luminance(color: str) -> float:
    parts = (int(color[start : start + 2], 16) / 255 for start in (1, 3, 5))
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_of_known_colors() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_is_readable_on_every_ground(scheme: int) -> None:
    colors = {name: pair[scheme] for name, pair in palette("reporting/page.css").items()}
    pairs = [*product(TEXT, GROUNDS), ("amber", "amber-ground"), ("ink", "amber-ground")]
    found = {(text, ground): contrast(colors[text], colors[ground]) for text, ground in pairs}
    assert {pair: ratio for pair, ratio in found.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_series_are_visible_on_their_chart(scheme: int) -> None:
    colors = {name: pair[scheme] for name, pair in palette("reporting/page.css").items()}
    series = [colors[f"c{number}"] for number in range(COLORS)]
    assert len(set(series)) == COLORS
    assert [color for color in series if contrast(color, colors["surface"]) < 3] == []


def test_the_chat_page_has_the_same_colors() -> None:
    reports, chat = palette("reporting/page.css"), palette("serve/page/page.css")
    common = reports.keys() & chat.keys()
    assert {*TEXT, *GROUNDS, "line", "amber", "amber-ground"} <= common
    assert {name: reports[name] for name in common} == {name: chat[name] for name in common}
