"""The kinds of personal data that are masked, and what stands in their place."""

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
"""In their order of precedence: where two overlap, the earlier one holds."""

KINDS: Final = tuple(TOKENS)


class Span(NamedTuple):
    """Characters `start` to `end` of a text are personal data of a kind."""

    start: int
    end: int
    kind: str
