"""Accounts and numbers that a person has somewhere: e-mail, WeChat, QQ, hospital records, health insurance."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from data.prepare.privacy.context import NUMBER_LINK, is_measured
from data.prepare.privacy.kinds import Span

_EMAIL: Final = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}[@＠][A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,4}\.[A-Za-z]{2,24}"
)
# A word without digit, dash or underscore behind a label is more often English than a number, except behind 微信号：.
_WECHAT: Final = re.compile(
    r"(?:(?:微信|薇信|威信|加微|加V|wechat|weixin|(?<![A-Za-z])(?:vx|wx))(?:公众)?(?:号码|号|id)?(?:是|为)?[ :：]*"
    r"(?=[-_A-Za-z0-9]{0,19}[0-9_-])|微信(?:号码|号)[ ]?[:：][ ]?)([A-Za-z][-_A-Za-z0-9]{5,19})(?![-_A-Za-z0-9])",
    re.IGNORECASE,
)
_QQ: Final = re.compile(
    rf"(?:(?<![A-Za-z])QQ|扣扣)(?:群|交流群)?(?:号码|号)?{NUMBER_LINK}([1-9][0-9]{{4,10}})(?![0-9A-Za-z@])",
    re.IGNORECASE,
)
_VALUE: Final = r"([A-Za-z]{0,6}[-_]?[0-9][-0-9A-Za-z_/]{2,24})(?![年月日例元%])"
_RECORD: Final = re.compile(
    r"(?:病[ ]?历[ ]?号|病案号|病案首页号|住[ ]?院[ ]?号|门[ ]?诊[ ]?号|急诊号|就诊号|就诊卡|诊疗卡|体检号|体检编号|病理号|影像号|检查号|"
    r"放射号|超声号|(?:患者|病人|就诊)(?:ID|编号|号|登记号|识别码)|病历编号|病案编号|登记号|(?<![A-Za-z])(?:MRN|Patient ID))"
    rf"(?:号码|号)?{NUMBER_LINK}{_VALUE}",
    re.IGNORECASE,
)
_INSURANCE: Final = re.compile(
    r"(?:医保|社保|医疗保险|社会保障|社会保险|新农合|合作医疗|参保人?|保险单|保单)"
    r"(?:医疗|电子凭证|个人|电脑|账户|手册)?(?:卡|证)?(?:号码|编号|账号|卡号|证号|号|(?=[ ]?[:：])|ID)"
    rf"{NUMBER_LINK}{_VALUE}"
)
_TRIAL: Final = re.compile(r"ChiCTR|NCT|CTR|国", re.IGNORECASE)
_LONG_ENOUGH: Final = 4


def find_emails(text: str) -> Iterator[Span]:
    if "@" in text or "＠" in text:
        for found in _EMAIL.finditer(text):
            yield Span(*found.span(), "email")


def find_wechats(text: str) -> Iterator[Span]:
    for found in _WECHAT.finditer(text):
        yield Span(*found.span(1), "wechat")


def find_qqs(text: str) -> Iterator[Span]:
    for found in _QQ.finditer(text):
        if not is_measured(text, found.end()):
            yield Span(*found.span(1), "qq")


def find_record_numbers(text: str) -> Iterator[Span]:
    """Numbers of records behind the names that hospitals have for them; registered trials have some of these, too."""
    for found in _RECORD.finditer(text):
        if len(found[1]) >= _LONG_ENOUGH and not _TRIAL.match(found[1]):
            yield Span(*found.span(1), "record_number")


def find_insurance_numbers(text: str) -> Iterator[Span]:
    for found in _INSURANCE.finditer(text):
        if len(found[1]) > _LONG_ENOUGH:
            yield Span(*found.span(1), "insurance_number")
