from __future__ import annotations

import math

import pytest

from reporting.formats import format_number, format_time, is_chinese, readable


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


def test_times_and_untrusted_text():
    assert format_time(0) == "1970-01-01 00:00 UTC"
    assert readable("a\0\x1b\t\n\x7f") == "a␀␛\t\n␡"
    assert [is_chinese(text) for text in ("頭痛", "ö?", "")] == [True, False, False]
