"""The kinds of personal data that are masked, and the placeholders that replace them."""

from __future__ import annotations

from typing import Final, NamedTuple

TOKENS: Final = {
    "email": "【邮箱】",
    "identity_card": "【身份证】",
    "insurance_number": "【医保号】",
    "record_number": "【病历号】",
    "qq": "【QQ】",
    "phone": "【电话】",
    "wechat": "【微信】",
    "name": "【姓名】",
    "address": "【地址】",
}
"""Placeholders in order of precedence: where two kinds overlap, the earlier one applies."""

KINDS: Final = tuple(TOKENS)


class Span(NamedTuple):
    """Personal data of one kind: characters `start` to `end` of a text."""

    start: int
    end: int
    kind: str
