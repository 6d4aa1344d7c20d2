"""Finds a person's accounts and numbers: e-mail, WeChat, QQ, hospital records, and health insurance."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from data.prepare.privacy.context import NUMBER_LINK, is_measured
from data.prepare.privacy.kinds import Span

_EMAIL: Final = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}[@＠][A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,4}\.[A-Za-z]{2,24}"
)
# After a label, a word without digits, dashes, or underscores is more often English than an account, except after 微信号：.
_WECHAT: Final = re.compile(
    r"(?:(?:微信|薇信|威信|徽信|v信|加微|加V|wechat|weixin|(?<![A-Za-z])(?:vx|wx|v(?=[:：])))(?:公众)?(?:号码|号|id)?(?:是|为)?[ :：]*"
    r"(?=[-_A-Za-z0-9]{0,19}[0-9_-])|(?:微信|v信)(?:号码|号|id)?[ ]?[:：][ ]?)(?!wechat|weixin)([A-Za-z][-_A-Za-z0-9]{5,19})(?![-_A-Za-z0-9])",
    re.IGNORECASE,
)
_WECHAT_LABEL: Final = re.compile("[微薇威徽vV][信xX:：]|加[微vV]|[wW][eExX]")
_QQ: Final = re.compile(
    rf"(?:(?<![A-Za-z])Q ?Q|扣扣|企鹅|(?<![A-Za-z])Q(?=群|号)|加Q)(?:[/、或和]?微信)?[)）]?(?:交流|病友|咨询|患者)?群?(?:号码|号)?{NUMBER_LINK}([1-9][0-9]{{4,10}})(?![0-9A-Za-z@])",
    re.IGNORECASE,
)
_VALUE: Final = r"([A-Za-z]{0,6}[-_]?[0-9][-0-9A-Za-z_/]{2,24})(?![年月日例元%])"
_RECORD: Final = re.compile(
    r"(?:病[ ]?[历案]|住[ ]?院|门[ ]?诊|急诊|就诊|诊疗|诊断|体检|病理|影像|检查|检验|化验|放射|超声|彩超|心电图?|内镜|胃镜|肠镜|手术|报告单?|"
    r"病人|患者|健康|登记|建档|档案|挂号|CT|MRI?|DR|X线|PACS|HIS|LIS)"
    r"(?:病[历案]|首页|登记|申请|档案|就诊|流水)?(?:[ ]?号码|卡号|卡|编号|编码|识别码|[ ]?号|[ ]?ID(?:号)?(?![A-Za-z]))"
    r"|(?<![A-Za-z])(?:MRN|(?:Patient|Record|Admission|Chart)(?: ID| No\.?| Number))",
    re.IGNORECASE,
)
_RECORD_VALUE: Final = re.compile(NUMBER_LINK + _VALUE)
_INSURANCE: Final = re.compile(
    r"(?:医保|社保|医疗保险|社会保障|社会保险|养老保险|商业保险|保险|农合|合作医疗|参保人?|投保人?|保险单|投保单|保单|理赔|医疗(?=证|卡|本|手册))"
    r"(?:医疗|电子凭证|个人|电脑|账户|手册|本)?(?:卡|证)?(?:号码|编号|账号|卡号|证号|号|(?=[ ]?[:：])|ID)"
    rf"{NUMBER_LINK}{_VALUE}"
)
_TRIAL: Final = re.compile(r"ChiCTR|NCT|CTR|国", re.IGNORECASE)
_LONG_ENOUGH: Final = 4


def find_emails(text: str) -> Iterator[Span]:
    """Yields e-mail addresses."""
    if "@" in text or "＠" in text:
        for found in _EMAIL.finditer(text):
            yield Span(*found.span(), "email")


def find_wechats(text: str) -> Iterator[Span]:
    """Yields WeChat names that follow a label."""
    if not _WECHAT_LABEL.search(text):
        return
    for found in _WECHAT.finditer(text):
        yield Span(*found.span(1), "wechat")


def find_qqs(text: str) -> Iterator[Span]:
    """Yields QQ numbers that follow a label."""
    for found in _QQ.finditer(text):
        if not is_measured(text, found.end()):
            yield Span(*found.span(1), "qq")


def find_record_numbers(text: str) -> Iterator[Span]:
    """Yields numbers of hospital records that follow a label, such as 住院号.

    Registration numbers of clinical trials, which may follow such a label, too, are left out.
    """
    for label in _RECORD.finditer(text):
        found = _RECORD_VALUE.match(text, label.end())
        if found and len(found[1]) >= _LONG_ENOUGH and not _TRIAL.match(found[1]):
            yield Span(*found.span(1), "record_number")


def find_insurance_numbers(text: str) -> Iterator[Span]:
    """Yields health insurance numbers that follow a label."""
    for found in _INSURANCE.finditer(text):
        if len(found[1]) > _LONG_ENOUGH:
            yield Span(*found.span(1), "insurance_number")
