from __future__ import annotations

import math

import pytest

from reporting.formats import (
    Unit,
    display_unit,
    format_number,
    format_seconds,
    format_setting,
    format_time,
    is_chinese,
    readable,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.84817, "−0.8482"),
        (1623.8, "1,624"),
        (40.0, "40"),
        (7.39e-06, "7.39e−6"),
        (2_500_000.0, "2.5e6"),
        (None, "not finite"),
        (math.nan, "not finite"),
    ],
)
def test_numbers(value, text):
    assert format_number(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.0, "0%"), (0.12345, "12.3%"), (1.0, "100%"), (0.00103, "0.103%")])
def test_shares(value, text):
    assert format_number(value, share=True) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.25 s"), (119.0, "119 s"), (120.0, "2 min"), (7199.0, "120 min"), (9000.0, "2.5 h")]
)
def test_durations(seconds, text):
    assert format_seconds(seconds) == text


def test_units_of_series():
    assert display_unit("bytes", [1.0]) == Unit("GiB", 2**30)
    assert display_unit("seconds", [1.0, 130.0]) == Unit("min", 60.0)
    assert display_unit("tokens/s", [1e9]) == Unit("tokens/s", 1.0)
    assert format_number(3000.0, unit="tokens/s") == "3,000 tokens/s"
    assert format_number(math.nan, unit="GiB") == "not finite"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not set"),
        ({}, "none"),
        ((), "none"),
        (math.nan, "not finite"),
        (False, "no"),
        ({"ner": 5, "open": None}, "ner: 5, open: not set"),
        (["a", 2, 1e-05], "a, 2, 1e-05"),
    ],
)
def test_settings_are_words(value, text):
    assert format_setting(value) == text


def test_times_and_untrusted_text():
    assert format_time(0) == "1970-01-01 00:00 UTC"
    assert readable("a\0\x1b\t\n\x7f") == "a␀␛\t\n␡"
    assert [is_chinese(text) for text in ("頭痛", "ö?", "")] == [True, False, False]
