"""Finds addresses after a label such as 住址：, or after 家住 if they end with a house number."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from data.prepare.privacy.context import CJK
from data.prepare.privacy.kinds import Span

_LINK: Final = r"(?:[ ]?[(（][^()（）\n]{1,8}[)）])?[\"”']?[ ]*[:：=|][ ]*[\"“']?"
_LABEL: Final = r"(?:住[ ]?址|地[ ]?址|住所|居住地|住处|常住地|出生地|籍贯|户籍地|户籍所在地|户籍|户口所在地)"
_NEXT: Final = "(?:联系)?(?:电话|手机|方式|人)|邮编|邮政|[Qq][Qq]|微信|身份证|(?:职业|民族|婚姻)[:： ]|工作单位|单位[:：]|姓名|性别|年龄|科室|入院|主诉|来院|就诊"
_ONE: Final = rf"(?!{_NEXT})[{CJK}0-9A-Za-z#()（）·~～－—-]"
_MORE: Final = (
    rf"(?:[，,][ ]?(?:[{CJK}]{{1,10}}?(?:路|街|大道|村|镇|小区|花园|大厦|苑)|[0-9A-Za-z]{{1,5}}(?:号|栋|幢|单元|室|座))"
    rf"(?:{_ONE}){{0,30}})*"
)
_LABELED: Final = re.compile(rf"{_LABEL}{_LINK}((?:{_ONE}|[ ](?={_ONE})){{2,80}}{_MORE})")
_DIRECT: Final = re.compile(rf"{_LABEL}[ ]?((?:{_ONE}){{6,60}})")
_HOUSE: Final = r"[0-9一二三四五六七八九十百]{1,6}(?:号楼|号院|号|栋|幢|室|组|弄|单元|座|户|楼|门)(?!床|病床|病房|诊)(?:[0-9]{2,4}(?![0-9年月日:：号室户栋幢楼单门组层座]))?"
_LABELS: Final = re.compile("住 ?[址所处]|地 ?址|[住生]地|户籍|籍贯|户口|所在地")
_LIVING: Final = re.compile("家住|现住|居住|住在|家在|租住|常住|[者人，。,]住[^院]")
_LIVES: Final = re.compile(
    rf"(?:家住|现住址?|居住于|居住在|住在|家在|租住于?|常住|(?<=[者人，。,])住(?!院))[ :：]?([{CJK}]{{2,20}}?(?:省|市|区|县|镇|乡|村|路|街|道|巷|弄|小区)(?:[{CJK}0-9A-Za-z-]{{0,30}}?{_HOUSE})+)"
)
_PUBLIC: Final = re.compile(
    r"(?:IP|网|网络|网站|MAC|内存|存储|下载|链接|邮箱|邮件|电邮|E-?mail|物理|寄存器|访问|登录|官网|医院|门诊部?|药店|药房|公司|厂|厂家|"
    r"生产|企业|注册|机构|挂号|诊室|学校|会议|展会|诊所|持有人|经营|办公)(?:的|具体|详细)?[ ]?$",
    re.IGNORECASE,
)
_PARTS: Final = re.compile("[省市区县州盟旗镇乡村路街道巷弄号栋幢室楼屯组园苑庄寨里坊]|胡同|大厦")
_PERSONAL: Final = re.compile(r"住[ ]?址|住所|[居常]住地|住处|户籍|户口|出生地|籍贯")
_HOUSE_ENDS: Final = re.compile("(?<=[号室栋幢楼元层组户村])(?=因|于|以|患|男|女|[，,]?[ ]?(?:入院|来院|就诊))")
_NONE: Final = re.compile("不详|不明|未|同上|同前|略|无$|保密|见|请|本市$|外地$|https?|www|ftp")


def find_addresses(text: str) -> Iterator[Span]:
    """Yields postal addresses.

    After a label and a colon, an address must name an administrative area, a street, or a building, unless the label is
    that of a person's address, such as 住址. After a label without a colon, it must contain a house number, and after
    家住 or a similar expression, it must end with one. Addresses of institutions are left out.
    """
    if any(mark in text for mark in ("住", "址", "户", "籍", "生地")) and _LABELS.search(text):
        for pattern in (_LABELED, _DIRECT):
            for found in pattern.finditer(text):
                value = _cut(found[1])
                personal = pattern is _LABELED and _PERSONAL.search(found[0][: found.start(1) - found.start()])
                public = _PUBLIC.search(text[max(0, found.start() - 10) : found.start()])
                if not public and not _NONE.match(value) and _is_place(value, bool(personal), pattern is _DIRECT):
                    yield Span(found.start(1), found.start(1) + len(value), "address")
    if ("住" in text or "家在" in text) and _LIVING.search(text):
        for found in _LIVES.finditer(text):
            yield Span(*found.span(1), "address")


def _cut(value: str) -> str:
    """Returns an address without the text after its house number."""
    end = _HOUSE_ENDS.search(value)
    return (value[: end.start()] if end else value).rstrip(" (（-—")


def _is_place(value: str, personal: bool, direct: bool) -> bool:
    if direct:
        return re.search(_HOUSE, value) is not None
    return _PARTS.search(value) is not None or (personal and len(value) > 2)
