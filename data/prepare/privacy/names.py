"""Names of persons behind a label such as 姓名： or 联系人：, or before a sex, as in 患者王某明，男."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from data.prepare.privacy.context import CJK
from data.prepare.privacy.kinds import Span
from data.prepare.privacy.surnames import SURNAME

_LINK: Final = r"(?:[ ]?[(（][^()（）\n]{1,8}[)）])?[\"”']?[ ]*[:：=|][ ]*[\"“']?"
_CHARACTER: Final = f"[{CJK}×*＊○]"
_END: Final = r"(?=[ ，,。．.；;、/|）)\]】\[【（(\n\t\"'”’<>]|$)"
_GOES_ON: Final = (
    "(?=男|女|性别|年龄|现年|出生|生于|身份证|电话|手机|住址|家住|地址|科室|床号|住院|门诊|病历|因|于|以|入院|来院|来我|就诊|主诉|患有|"
    "系|职业|民族|汉族|[0-9])"
)
_CHINESE: Final = (
    rf"(?:{_CHARACTER}{{1,8}}(?:[·•]{_CHARACTER}{{1,8}}){{1,3}}|{_CHARACTER}{{2,4}}{_END}|{_CHARACTER}[ ]{_CHARACTER}{_END}|"
    rf"{_CHARACTER}{{2,4}}?{_GOES_ON}|{SURNAME}{_CHARACTER}{{1,2}})"
)
_FOREIGN: Final = rf"[A-Za-z][A-Za-z'-]+(?:[ ][A-Za-z][A-Za-z.'-]*){{0,3}}{_END}"
_WITH_SURNAME: Final = rf"{SURNAME}{_CHARACTER}{{1,2}}"
_LABELS: Final = re.compile(
    "姓 ?名|患者|病人|患儿|产妇|孕妇|医师|签名|签字|联系人|监护人|陪护|责任护士|术者|主刀|报告者|检查者|检验者|记录者|记录人|Patient"
)
"""Few texts have one: a look for them, fast since each begins with a plain character, saves the patterns below."""
_PATTERNS: Final = (
    re.compile(rf"姓[ ]?名{_LINK}({_CHINESE}|{_FOREIGN})"),
    re.compile(rf"姓[ ]?名(?:[ ]|是|为|叫)?({_WITH_SURNAME})(?:{_END}|(?=男|女|性别|年龄|[0-9]))"),
    re.compile(rf"(?m)^【姓名】[ ]?({_WITH_SURNAME})(?=[ ]?(?:[【\[\n]|$))"),
    re.compile(
        "(?:联系人|监护人|陪护人?|签名|签字|(?:主治|主管|经治|住院|主任|副主任|麻醉|报告|审核|送检|接诊|门诊|管床|值班|手术)医师|"
        rf"手?术者|主刀|责任护士|报告者|检查者|记录者|记录人|检验者){_LINK}({_WITH_SURNAME}){_END}"
    ),
    re.compile(
        rf"(?:患者|病人|患儿|产妇|孕妇)[:：]?[ ]?({_WITH_SURNAME})(?=[，, （(]{{1,2}}(?:男|女)(?:[，,、。 性）)]|[0-9]))"
    ),
    re.compile(r"Patient(?:'s)? [Nn]ame[ ]?[:：][ ]?([A-Z][A-Za-z'-]+(?:[ ][A-Z][A-Za-z.'-]*){0,3})"),
)
_NO_NAME: Final = re.compile(
    "不|未|无|略|保密|匿名|待|见|同上|同前|请|填|空|本人|患者$|病人$|男$|女$|性别|年龄|科室|床号|职业|电话|地址|住址|身份证|日期|诊断|联系|"
    "和|及|与|是|如|高[热烧龄血]|黄疸|水肿|白[带斑]|成[人年]|安静|温|[xX*×＊○]+$|(?:N/?A|null|none|name|unknown|string|str)$",
    re.IGNORECASE,
)
_OF_FORM: Final = re.compile("性别|年龄|科室|床号|电话|地址|住院|日期|[号名码]$")
_SEX_BEHIND: Final = re.compile(r"[，,、 （(|]*(?:男|女|性别)")


def find_names(text: str) -> Iterator[Span]:
    if not _LABELS.search(text):
        return
    for pattern in _PATTERNS:
        for found in pattern.finditer(text):
            start, end = found.span(1)
            name = found[1]
            if name[-1] in "男女" and len(name) > 2 and not _SEX_BEHIND.match(text, end):
                end -= 1  # 姓名：王某明男，45岁
            if not _NO_NAME.match(name) and not _OF_FORM.search(name):
                yield Span(start, end, "name")
