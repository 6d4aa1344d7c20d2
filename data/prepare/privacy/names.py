"""Finds names of persons after a label such as 姓名： or 联系人：, or before a sex, as in 患者王某明，男."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from data.prepare.privacy.context import CJK
from data.prepare.privacy.kinds import Span
from data.prepare.privacy.surnames import SURNAME

_LINK: Final = r"(?:[ ]?[(（][^()（）\n]{1,8}[)）])?[\"”']?[ ]*[:：=|][ ]*[\"“']?"
_CHARACTER: Final = f"[{CJK}×*＊○]"
_END: Final = r"(?=[ \u3000，,。．.；;、/|）)\]】\[【（(\n\t\"'”’<>]|$|女士|先生|小姐|老师|教授|主任)"
_GOES_ON: Final = (
    "(?=男|女|性别|年龄|现年|出生|生于|身份证|电话|手机|住址|家住|地址|科室|床号|住院|门诊|病历|因|于|以|入院|来院|来我|就诊|主诉|患有|"
    "系|职业|民族|汉族|[0-9])"
)
_CHINESE: Final = (
    rf"(?:{_CHARACTER}{{1,8}}(?:[·•]{_CHARACTER}{{1,8}}){{1,3}}|{_CHARACTER}{{2,4}}{_END}|{SURNAME}[Xx]{{1,2}}{_END}|{_CHARACTER}[ ]{_CHARACTER}{_END}|"
    rf"{_CHARACTER}{{2,4}}?{_GOES_ON}|{SURNAME}{_CHARACTER}{{1,2}})"
)
_FOREIGN: Final = rf"[A-Za-z][A-Za-z'-]+(?:[ ][A-Za-z][A-Za-z.'-]*){{0,3}}{_END}"
_WITH_SURNAME: Final = rf"{SURNAME}(?:{_CHARACTER}{{1,2}}|[Xx]{{1,2}}(?![A-Za-z]))"
_STAFF: Final = (
    "(?:主治|主管|经治|主诊|住院|主任|副主任|麻醉|报告|审核|审签|复核|送检|接诊|首诊|门诊|急诊|管床|值班|手术|申请|开单|检查|检验|诊断|会诊|上级|"
    "下级|进修|实习|规培|责任|巡回|器械|签发|执行|带教|书写|记录|操作|家庭|穿刺|治疗|随访|采集|采血|配药|发药|核对|交班|接班|穿台|洗手|当班|护理)"
    "(?:医师|医生|大夫|护士|护师|技师|药师|人员|人|者|员)"
)
_PERSONS: Final = (
    "(?:联系|监护|代理|就诊|受检|体检|申请|收件|收货|寄件|陪同|陪护|陪诊|投保|被保险|受益|委托|签收|负责|当事|被鉴定|捐献|取药|领药|挂号|预约|付款|"
    "填表|填写|接收|接诊|介绍|知情同意|受试)(?:人|者)"
)
_KIN: Final = "父亲|母亲|丈夫|妻子|配偶|爱人|儿子|女儿|祖父|祖母|家长|家属|本人"
_SPEAKERS: Final = "医生|医师|大夫|护士|护师|技师|药师|患者|病人"
_FIELD: Final = (
    rf"(?=[，,；;、 ]{{0,2}}(?:[(（][{CJK}]{{1,4}}[)）][，,；;、 ]{{0,2}})?"
    "(?:联系|电话|手机|关系|身份证|签[名字]|日期|时间|工号|职称|(?:男|女)[，,、 ]|[0-9]{1,3}岁|[0-9]{4}[年./-]))"
)
"""Pattern of what follows a name in a form, but not the name of a speaker in a dialogue."""
_NAMED: Final = (
    re.compile(rf"姓[ ]?名{_LINK}({_CHINESE}|{_FOREIGN})"),
    re.compile(rf"姓[ ]?名(?:[ ]|是|为|叫)?({_WITH_SURNAME})(?:{_END}|(?=男|女|性别|年龄|[0-9]))"),
    re.compile(rf"(?m)^【姓名】[ ]?({_WITH_SURNAME})(?=[ ]?(?:[【\[\n]|$))"),
)
"""Names after 姓名."""
_BEHIND_COLON: Final = re.compile(rf"[:：=|][ ]*[\"“']?({_WITH_SURNAME})(?:{_END}|{_FIELD})")
_REMARK: Final = r"(?:[ ]?[(（][^()（）\n]{1,8}[)）])?[\"”']?[ ]*$"
_ROLE: Final = re.compile(
    rf"(?:{_STAFF}|{_PERSONS}|陪护|签名|签字|手?术者|主刀|(?:第?[一二三]|手术)助手?|麻醉师){_REMARK}"
)
_SPEAKER: Final = re.compile(rf"(?:{_KIN}|{_SPEAKERS}){_REMARK}")
_KIN_ALONE: Final = re.compile(rf"(?:父亲|母亲|丈夫|妻子|配偶){_REMARK}")
_ENDS_NAME: Final = re.compile(_END)
_ENDS_FIELD: Final = re.compile(_FIELD)
_ENDS_LINE: Final = re.compile(r"[，,。；; ]*(?:$|\n|[父母]亲)")
_LONGEST_LABEL: Final = 24  # characters
_SIGNED: Final = re.compile(
    rf"[师生夫士者员](?:签[名字])?({_WITH_SURNAME})(?=[ ]*(?:$|\n|[，,；; ]+[0-9]{{4}}[年./-]))"
)
_STAFF_BEFORE: Final = re.compile(rf"{_STAFF}(?:签[名字])?$")
_PATIENT: Final = re.compile(
    rf"[患病产孕][者人儿妇][:：]?[ ]?({_WITH_SURNAME})"
    r"(?=[，, （(]{1,2}(?:男|女)(?:[，,、。 性）)]|[0-9])|(?:男|女)性?[，, ]?[0-9]{1,3}岁|[，, （(]{1,2}[0-9]{1,3}岁)"
)
_SEX: Final = re.compile(r"[，, （(][男女][，,、。 性）)0-9]")
_CASE: Final = re.compile(
    rf"(?m)^(?:例[ ]?[0-9一二三四五六七八九十]{{1,3}}[:：.、 ]{{0,2}})?({_WITH_SURNAME})(?=[，, （(]{{1,2}}(?:男|女)(?:[，,、。 性）)]|[0-9]))"
)
_ENGLISH: Final = (
    re.compile(r"(?:Patient(?:'s)? [Nn]ame|Full [Nn]ame)[ ]?[:：][ ]?([A-Z][A-Za-z'-]+(?:[ ][A-Z][A-Za-z.'-]*){0,3})"),
    re.compile(
        r"(?:Patient|(?<![A-Za-z] )Name)[ ]?[:：][ ]?([A-Z][A-Za-z'-]+(?:[ ][A-Z][A-Za-z.'-]*){1,3})"
        r"(?=[,;，； ]+(?:Sex|Gender|Age|DOB|Date of birth|Tel|Phone|Mobile|MRN|ID|(?:M|F|[Mm]ale|[Ff]emale)(?![A-Za-z])))"
    ),
)
_NO_NAME: Final = re.compile(
    "不|未|无|略|保密|匿名|待|见|同上|同前|请|填|空|本人|患者$|病人$|男$|女$|性别|年龄|科室|床号|职业|电话|地址|住址|身份证|日期|诊断|联系|"
    "和|及|与|是|如|高[热烧龄血]|黄疸|水肿|白[带斑]|成[人年]|安静|温|[xX*×＊○]+$|(?:N/?A|null|none|name|unknown|string|str)$",
    re.IGNORECASE,
)
_WORDS: Final = re.compile(
    "高[脂糖钾钠钙危度]|黄[体斑色]|白[血内细天班癜蛋色]|成[功分]|安[全慰排定]|方[便法案向]|严[重格]|石[淋膏棉]|牛[皮奶]|马上|甘[油草]|钱[不币够]|常[规年见]|"
    "明[显确天]|单[纯侧独]|应[该当]|古代|路[上过]|项目|童年|管[理道]|顾虑|雷公|田七|连续|康复|舒[服适]|向[上来]|屈光|游走|梅毒|解除|汤药|丁酸|胡[说椒]|何[时况]|"
    "许[多久]|曾[经有]|任[何意]|于[是今昨]|关[节键]|焦虑|盛[行夏]|左[侧右心肺上下]|苗条|季节|毛[发病]|葛根|艾滋|霍乱|蒲公|桂枝|车祸|余[无不]|周[围期边]|金属|陈[旧述]|张[口力]|徐缓|唐氏|戴[镜环]|"
    "万一|易[感于]|凌晨|沈[默]|容|符合|危[重险]|厉害|申请|房[颤室]|宫[颈腔缩内口外]|施[行术]|龙胆|金[银黄]"
)
"""Words and phrases after a label whose first two characters look like the beginning of a name."""
_OF_FORM: Final = re.compile("性别|年龄|科室|床号|电话|地址|住院|日期|[号名码]$")
_SEX_BEHIND: Final = re.compile(r"[，,、 （(|]*(?:男|女|性别)")


def find_names(text: str) -> Iterator[Span]:
    """Yields names after a label or before a sex or an age.

    The search begins with what every match has, such as a colon, and then checks the label before it, which is faster
    than a search for each of many labels.
    """
    if "姓" in text:
        for pattern in _NAMED:
            yield from _names(pattern, text)
    for found in _BEHIND_COLON.finditer(text):
        if not _WORDS.match(found[1]) and _is_labeled(text, found):
            yield from _span(found, text)
    for found in _SIGNED.finditer(text):
        if not _WORDS.match(found[1]) and _STAFF_BEFORE.search(text[max(0, found.start() - 8) : found.start(1)]):
            yield from _span(found, text)
    patterns = (_PATIENT, _CASE) if ("男" in text or "女" in text) and _SEX.search(text) else (_PATIENT,)
    for pattern in patterns:
        yield from _names(pattern, text, _WORDS)
    if "ame" in text or "atient" in text:
        for pattern in _ENGLISH:
            yield from _names(pattern, text)


def _is_labeled(text: str, found: re.Match[str]) -> bool:
    """Returns whether the label before a colon, and the text after the name, show that it is a name."""
    before = text[max(0, found.start() - _LONGEST_LABEL) : found.start()]
    if _ROLE.search(before):
        return _ENDS_NAME.match(text, found.end(1)) is not None
    if _SPEAKER.search(before) and _ENDS_FIELD.match(text, found.end(1)):
        return True
    return _KIN_ALONE.search(before) is not None and _ENDS_LINE.match(text, found.end(1)) is not None


def _names(pattern: re.Pattern[str], text: str, words: re.Pattern[str] | None = None) -> Iterator[Span]:
    for found in pattern.finditer(text):
        if words is None or not words.match(found[1]):
            yield from _span(found, text)


def _span(found: re.Match[str], text: str) -> Iterator[Span]:
    """Yields the first group of a match, if it can be a name."""
    start, end = found.span(1)
    name = found[1]
    if name[-1] in "男女" and len(name) > 2 and not _SEX_BEHIND.match(text, end):
        end -= 1  # 姓名：王某明男，45岁
    if not _NO_NAME.match(name) and not _OF_FORM.search(name):
        yield Span(start, end, "name")
