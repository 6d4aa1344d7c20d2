"""Splits a response to a choice question into clauses, each with the options that it names and how it rates them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from evals.replies.marks import OPTION

# --- Letters of options, except in words (CT), names (维生素B, A型, B超, D-二聚体), and English articles.
_NAMED_BEFORE: Final = "".join(
    f"(?<!{name})"
    for name in (
        "维生素",
        "维他命",
        "蛋白",
        "色素",
        "辅酶",
        "因子",
        "毒素",
        "肝炎病毒",
        "itamin ",
        "itamin",
        "血型",
        "hepatitis ",
    )
)
_NAMED_AFTER: Final = (
    r"(?!型|族|超|组|族|细胞|反应蛋白|二聚体|淋巴|级|群|波|链|受体|蛋白|因子|肝|期|区|胺|酶"
    r"|\s(?!is\b|and\b|or\b|was\b|option\b|because\b|since\b|would\b|seems\b|looks\b|as\b|not\b|are\b|were\b|both\b|all\b|might\b|may\b|could\b|can\b|should\b|must\b|has\b|appears\b|fits\b|alone\b|but\b|instead\b|rather\b|over\b|too\b)[a-z])"
)
_LETTER: Final = rf"(?-i:{OPTION}[A-J]|{_NAMED_BEFORE}(?<![A-Za-z0-9{OPTION}\-.])[A-HJ](?![A-Za-z0-9'’]|-[A-Za-z0-9\u4e00-\u9fff]){_NAMED_AFTER}|(?<![A-Za-z0-9{OPTION}])I(?![A-Za-z0-9'’]|\s+[a-z]))"
_RUN: Final = r"(?-i:(?<![A-Za-z0-9])[A-J]{2,10}(?![A-Za-z0-9]))"
_JOIN: Final = r"\s*(?:选?项)?\s*(?:[、/&+]|和|或者?|与|及|以及|跟|还是|或是|and|or)\s*(?:选项)?\s*"
_GROUP: Final = rf"(?:选项|option\s)?\s*[(（\[【“\"'「]?\s*((?:{_LETTER}|{_RUN})(?:{_JOIN}(?:{_LETTER}|{_RUN}))*)"
_ONE: Final = re.compile(rf"{_LETTER}|{_RUN}")

# --- Ends of clauses. A question mark belongs to the clause before it.
_SENTENCE: Final = re.compile(
    r"(?<=[。！!；;\n？?])|(?<=…)(?!…)|(?<=[^0-9]\.)(?<!\b[Aa]ns\.)(?=\s+[A-Z])|(?<![a-zA-Z:]\s)(?<=\s)(?=[A-J][.、:]\s*\S)|(?:(?<=[)）])|(?<=[A-J][❌✘✗×✅✔√☑])|(?<=[A-J]\s[❌✘✗×✅✔√☑]))(?=[→\s]*\x01?[A-J](?![A-Za-z]))|(?<=[A-J][错对])(?=[A-J]{1,9}(?:均|都|全)?[错对])"
)
_EXCEPTION: Final = re.compile(rf"((?<![排去删剔消免])除了?{OPTION}?[A-J](?:选?项)?(?:以外|之外|外)?)[，,]")
_LISTED: Final = re.compile(
    rf"(?<=[A-J])\s*[，,]\s*(?:and |or |还有|以及)?(?={OPTION}?[A-J](?:\s*[，,、]|项?[和与及或都均全两三]|\s+(?:and|or|are|all|both)\b|[.。]?$))",
    re.MULTILINE,
)
"""A comma between the letters of a list: `A，B都对`. A comma before a separate clause is kept: `不选A，B正确`."""
_COMMA: Final = re.compile(
    r"[，,]|(?<!不)(?<!而)(?=而是|而应|而不是|而非|但是|但|不过|然而|却|因为|由于|所以|因此|因而|故选|故答案|故正确|故应|只有|只剩|剩下|余下|留下|改为|改成|改选|更改为|therefore|because|\bbut\b|rather than|instead)"
    rf"|(?=或者?(?:答案|选|是|应))|(?=(?<=[A-J项])(?:不是|不选|并非|not)\s*{_LETTER})"
    r"|(?<![不的确是为作])(?=正确答案|最终答案|最佳答案)|(?<=后)(?=[A-J\x01])|(?=[（(](?:更正|修正|纠正|改))|(?=也可能[是为选]|也不[选是]|也许是|也是\x01?[A-J])"
)

_CHOOSES: Final = re.compile(
    r"(?<![不别勿能宜该应要会可再法予首备入优筛当多单待所误我你们人此题是还才故须需必只就以然先都后将把])选(?!项|择题|取)"
)

_VERDICT: Final = re.compile(r"[，,]\s*(?=(?:[可应]?排除|错误?|不?正确|不?对|不?符合|不选)[。.；;\n])")
"""A comma before a verdict on the options that the clause names: `A，错误。`"""
_AS_ANSWER: Final = re.compile(
    r"^(?:因此|所以|因而|故此?)?(?:(?:应|就|即|才|也就)?(?:为|是|作为)(?:本题|该题|此题|题目|正确|最终|的)*(?:答案|选项)|当选|入选|应选|可选|(?:最)?符合(?:题意|题干|要求|题目要求))[。.！!；;]?$"
)
"""A clause that states that the previously named option is the answer: `B项错误，当选`."""
_TAG: Final = re.compile(r"^\s*(?:[对是行]|可以|正确|right|correct)?(?:吗|吧|不对|不是)?\s*[？?]\s*$", re.IGNORECASE)
"""A question about the preceding letter: `D，对吗？`"""

# --- Meaning of clauses.
_HARMLESS: Final = re.compile(
    r"没有错误|没有错|没有问题|没错|不错|没问题|无误|毫无疑问|无疑|不难|不仅|不但|不言而喻|差不多|排除法|不管怎样|无论如何|不得不|错误分析|没有疑问|毫不犹豫|毫不迟疑|not only|no doubt|排除干扰"
)
_TWICE_DENIED: Final = re.compile(
    r"(?:不(?:能|得|可|会)|无法|没法)不(?=选|是|为)|(?:并不|不|并非|并没有|不能说)(?:是|算|会)?(?:不(?=正确|对|符合|合适|合理|可能|选)|没有(?=道理))"
    r"|\bnot (?:in|un)(?=correct|likely)|\bnot wrong"
)
"""Double negations: `不能不选B`, `B不是不正确`."""
_DENIES: Final = re.compile(
    r"不(?:应该?|能|宜|可|该|要|会|再|予|太|是很|够|完全|怎么|一定|必|建议|适)?(?:选|是|为|对|正确|符|属|合|成立|妥|当|准确|恰当|支持|包括|包含|足|全面|完整|行|可取|匹配|存在|严谨|考虑|可能|像|相符|沾边|足以|应|同意|算|了)"
    r"|未必|不见得|谈不上|有待|存疑|商榷|可疑|难说|不好说|[别勿莫]选|非(?=\x01?[A-J])|rather than|instead of|不要|错|有误|误|排除|除外|否定|否决|剔除|去掉|去除|淘汰|划掉|删|并非|而非|非答案|无关|没有|不可能|无法|难以|×|✗|❌|✘|太绝对|片面|过于|偏离|站不住|说反|相反|矛盾"
    r"|不(?:认为|觉得|相信|赞成|支持|推荐|主张|倾向|打算|想|敢|愿|适用|优于|如)"
    r"|incorrect|wrong|\bnot\b|n't\b|exclude|eliminat|rul(?:e|ed|ing) out|false\b|unlikely|irrelevant|inappropriate",
    re.IGNORECASE,
)
_ASKS_WRONG: Final = re.compile(
    rf"(?:错误|不正确|不对|不属于|不包括|不符合|不是|不宜|不应|不能|不会|有误|无关|不恰当|不合适|除外|例外|禁忌|不需要|incorrect|wrong)(?-i:[^，。A-J]){{0,20}}?(?:的|statement|option|one)(?:选项|一项|说法|叙述|描述|答案|项)?(?:应该|应|就)?(?:是|为|：|:|选|is)[:：\s]*{_GROUP}"
)
_COMPARISON: Final = re.compile("比|于|胜过|不如|不及|better than")
_COMPARES: Final = [
    re.compile(pattern)
    for pattern in (
        rf"{_GROUP}(?:选?项)?(?:比|优于|好于|胜过|胜于|强于|is better than){_LETTER}(?:选?项)?(?:更|要|还要|合适|好|[.。！!\s]*$)",
        rf"{_LETTER}(?:选?项)?(?:不如|不及|比不上)\s*{_GROUP}",
    )
]
_EXCEPT: Final = re.compile(
    rf"(?<![排去删剔消免])除了?{_GROUP}(?:选?项)?(?:以外|之外|外|，)?(?-i:[^A-J]){{0,8}}(?:错|不对|不正确|不符|不是|排除)"
)
_OPEN: Final = re.compile(
    r"如果|假如|假设|倘若|要是|^若|若[为是有]|否则|不然|反之|\bif\b|\botherwise\b|有人|很多人|不少人|同学|一开始|起初|最初|原本|本来|原以为|以为|乍看|初看|看似|似乎可以|误[选以判认答]|[易常爱容]易?[错误]?[选混]|干扰|迷惑|曾|之前选|其次|次选|次之|备选|"
    r"(?:[他她]们?|别人|旁人|大家|人们|部分|有些|多数|少数|考生|学生|同桌|老师|网友|小[明红刚李王张]|somebody|someone|people|students?)(?-i:[^A-J]){0,6}(?:选|认为|觉得|说|答|猜|chose|think|say|pick)|"
    r"不知道|不确定|不清楚|不能确定|无法确定|无法判断|拿不准|说不准|难以确定|难以判断|犹豫|纠结|在.{1,6}(?:之间|中间)|排除不了|(?:不能|无法|难以|不可)排除|not sure|cannot determine|between|depends",
    re.IGNORECASE,
)
_EXEMPT: Final = re.compile(
    r"如果(?:我)?(?:没有?|未)(?:记|看|理解)错|如果(?:只能|必须|一定|非|真|要|让我)|虽然不确定|不(?:太|是很|完全|十分)?确定"
)
_ASKS: Final = re.compile(r"[？?]\s*$|(?:吗|呢|是不是|对不对)[。？?！]?\s*$|为什么|为何|哪|怎么|是否|^why|^which")
_CORRECTS: Final = re.compile(
    r"^[（(]?(?:哦|啊|嗯|噢|呃|但|但是|不过|抱歉|对不起)?[，,]?\s*(?:不对$|不对[。！!…,，]|不$|不，|不不|等等|等一下|等下|且慢|错了|我?(?:说|写|选|打|看|搞|弄)错了?|更正|纠正|修正|修改|改正|订正|我错了|应更正|重新|再想|再仔细|仔细一?想|仔细再|wait|actually|correction|scratch|hold on|no[,.]?$|sorry)"
    r"|改为|改成|改选|更改为|更正为|修正为|应改|划掉刚才|收回|(?:刚才|刚刚|之前|先前|前面|上面|上文|此前)(?-i:[^A-J，。]){0,10}(?:有误|有错|错了|不对|不正确|是错)",
    re.IGNORECASE,
)
_CONCLUDES: Final = re.compile(
    r"最终|综上|综合以上|因此|所以|故|最后|总之|由此|可见|得出|therefore|thus|final|hence|conclu|in summary",
    re.IGNORECASE,
)
_CONTRASTS: Final = re.compile(r"而是|不过|但|可是|然而|其实|实际上|but|however")

_ADDS: Final = re.compile(r"^(?:但|而且|并且|当然)?(?:也|或|亦|又|还)|^(?:但|而|不过|当然)?\x01?[A-J](?:选?项)?[也亦]")

_BE: Final = r"(?:应该|应当|应|就|只能|当然|显然|肯定|必然|一定|确实|大概|可能|也许|估计|还是|正)*(?:是|为|选择?|即|：|:|=|→|is|would be|should be|就是)?\s*(?:第|option|选项|the|选)*[:：\s]*"
_STATES: Final = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?:答案|结论|结果|answer|choice|\bans\b)(?!解析|分析)(?-i:[^A-J，。\x01]){{0,10}}?{_BE}{_GROUP}",
        rf"(?:正确|最佳|最合适|最符合|符合|最恰当|最优|合适|(?<![\u4e00-\u9fff])对(?=的)|最可能|best|correct|right)(?-i:[^A-J，。\x01]){{0,12}}?(?:的|选项|项|option|one|statement)(?-i:[^A-J，。\x01]){{0,6}}?(?:是|为|：|:|选|is)\s*{_GROUP}",
        rf"(?:选择?(?!项)|选定|挑|填|勾选|choose|select|pick|say|go with|vote for)(?:了|的是|答案|是|为|第|：|:|\s|the|个|一个)*{_GROUP}",
        rf"{_GROUP}(?:选?项)?[)）\]】”\"'」]?\s*(?:应该|才|就|便|显然|无疑|确实)*(?:是|为|作为|符合|is|(?:would|should|must|seems to) be)(?:\s|本题|该题|此题|这道?题|题目|最终|我|唯一|最|the)*(?:的|\s)*(?:正确|标准|最佳|最终|参考|correct|best|right)*(?:的|\s)*(?:答案|选项|选择|answer|choice|option)",
        rf"(?:所以|因此|因而|故|故而|综上(?:所述)?|于是|从而|得出?|剩下?的?|只剩下?|余下的?|留下的?|只有|唯有|唯一|而是|改为|改成|则|最终|应该|应当|应|那就|就|我猜|猜|定|but|instead|(?:should|must|would|could|might|has to) be|therefore|thus|so|hence)(?:是|为|选|应|该|有|就|答案|的|可能|大概|只|能|了|一个|[：:\s])*{_GROUP}(?:选?项)?[)）\]】”\"'」]?(?:选项|了|吧|啦|呀|无疑|正确|对|符合.*|合适|成立|才.*|最.*|没问题|可选|入选|当选)*[.。！!\s…]*$",
        rf"{_GROUP}(?:选?项)?[也亦](?:可能|可以|可|许|行|对|能|是|正确|成立|没错|符合|合理|讲得通|说得通)",
        rf"{_LETTER}(?:应)?改\s*{_GROUP}",
        rf"(?:也|或者?|亦|又|还)(?:可能|可以|许|行|对|能)(?:是|选|为)?{_GROUP}",
    )
]
_RIGHT: Final = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"{_GROUP}(?:选?项|答案)?[)）\]】”\"'」]?(?-i:[^A-J\x01]){{0,12}}?(?:正确|对(?!于|应|照|症|比|抗|称|患|人|机|象)|符合|才是|最(?:合适|佳|恰当|符合|准确|可能|好|贴切|合理|优|像|常见)|更(?:好|佳|优|合适|合理|准确|恰当|符合|可能|全面)|首选|成立|合适|恰当|无误|没问题|没错|满足|合理|准确|可取|√|✓|✔|✅|is correct|is right|is true|most (?:likely|appropriate|suitable)|[:：]\s*true\b|correct|right|☑|fits best)",
        rf"(?:是|为|属于|叫做?|即|是指|称为|觉得|认为|感觉|倾向于?|偏向于?|支持|同意|猜|像|用|首选|推荐|建议|采用|选用|应当?|应该|指向|诊断[为是：:]|[诊辨]为|辨证为|考虑|more like|think|believe|is|'s)\s*{_GROUP}(?:选?项|方案)?[)）\]】”\"'」]?(?:了|吧|啦|呀|啊|呗|哦|嘛|的)?[.。！!\s…]*$",
        rf"{_GROUP}(?:选?项)?(?:的)?可能性(?:最|更|较|比较|很)?[大高]",
        rf"只有{_GROUP}(?:选?项)?(?-i:[^A-J]{{0,3}})(?:能|可|适|符)",
        rf"^[√✓✔✅☑]\s*{_GROUP}(?:选?项)?[.。\s]*$",
        rf"^(?:正确|对|是的|yes|correct)[：:\s]*{_GROUP}[.。\s]*$",
    )
]
_SUPPOSED_CHOICE: Final = re.compile(
    r"(?:选?项)?(?:的(?!理由|原因|依据|是|吧|[。.！!]?$)|会|则|就(?!对|行|可以|好|是|[。.！!]?$)|意味着|难免|容易)"
)
"""Text after an option that is mentioned but not chosen: `选A的人很多`, `选A会漏诊`."""
_AFTER_ANSWER: Final = re.compile("答案|answer", re.IGNORECASE)
_FILLER: Final = re.compile(
    r"[两三四五]项|[\s()（）\[\]【】『』《》<>{}“”\"'‘’「」.。!！:：、，,;；…~—\-*→=]|选项|选择?|项|答案?|解答?|我|觉得|认为|感觉|应该|可能|大概|也许|估计|好像|吧|呢|啊|哦|呀|呗|嘛|喽|咯|哈|啦|的|是|就|那|嗯|好|您好|你好|题目?|第[0-9一二三四五六七八九十]+题|^[0-9]+|option|answer|\bans\b|definitely|certainly|probably|likely|maybe|perhaps|guess|think|would say|the|\bi\b|is|it|'s|sure|ok|okay",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Clause:
    """One clause of a response.

    Attributes:
        letters: letters of the options that the clause names, in order; if it states an answer, only the answer's.
        weight: `stated` (states the answer), `alone` (has only letters), `called right` (calls an option correct), or
            empty.
        texts: letters of the options that the clause names by their texts.
        denied: letters of the options that the clause denies.
        corrects: whether the clause cancels all previous statements.
        retracts: whether the clause cancels previous statements about the options that it denies.
        concludes: whether the clause draws a conclusion from previous statements.
        open: whether the clause is a question or supposition, or reports other people's opinions.
        adds: whether the clause's options are added to those of the previous clause.
    """

    letters: str
    weight: str = ""
    texts: str = ""
    denied: str = ""
    corrects: bool = False
    retracts: bool = False
    concludes: bool = False
    open: bool = False
    adds: bool = False


def clauses_of(text: str) -> list[Clause]:
    """Splits a response, as returned by `evals.replies.marks.with_options_marked`, into clauses, in order."""
    found: list[Clause] = []
    text = _LISTED.sub("、", _VERDICT.sub("", _EXCEPTION.sub(r"\1", text)))
    for sentence in _SENTENCE.split(text):
        supposed = concluded = False
        for part in _parts(sentence):
            if _TAG.search(part) and found and found[-1].weight == "alone":
                found[-1] = Clause(found[-1].letters, open=True)
            clause = _read(part.strip(), concluded)
            if not clause.letters and found and len(found[-1].letters) == 1 and _AS_ANSWER.search(part.strip()):
                clause = Clause(found[-1].letters, "stated", concludes=True)
            concluded = concluded or (clause.concludes and not clause.letters)
            if supposed and clause.weight:
                clause = Clause(clause.letters, open=True)
            follows = clause.letters and re.search(r"就|则(?!选)|便|会|\bwould\b", part)
            supposed = (supposed and not clause.letters) or (_supposes(part) and not follows)
            if (
                clause.weight == "alone"
                and found
                and found[-1].weight in ("stated", "called right")
                and _goes_on(text, part)
            ):
                clause = Clause(clause.letters, found[-1].weight, adds=True)
            if clause.weight and found and found[-1].weight and _ADDS.search(part):
                clause = replace(clause, weight=found[-1].weight, adds=not _AFTER_ANSWER.search(part))
            if clause.weight == "alone" and found and sentence.strip() not in text.split("\n"):
                called = "called right" if any(pattern.search(part) for pattern in _RIGHT) else ""
                clause = Clause(clause.letters, found[-1].weight if found[-1].weight == "alone" else called)
            found.append(clause)
    return found


def _parts(sentence: str) -> Iterator[str]:
    """Yields the clauses of a sentence.

    A new clause starts before `选` only if an option was named before it: in `易错选A` and `他会选A`, the preceding words
    determine the meaning of A.
    """
    for part in _COMMA.split(sentence):
        start = 0
        for found in _CHOOSES.finditer(part):
            if _ONE.search(part, start, found.start()):
                yield part[start : found.start()]
                start = found.start()
        if part[start:].strip():
            yield part[start:]


def _goes_on(text: str, part: str) -> bool:
    """Returns whether a clause that consists of a letter continues a list, such as `答案：A，B`."""
    return re.search(rf"[A-J]\s*[，,]\s*{re.escape(part.strip())}", text) is not None


def _supposes(part: str) -> bool:
    """Returns whether a clause is a condition, so that the next clause with an option holds only under it."""
    return re.search(
        r"如果|假如|假设|倘若|要是|^若|若[为是有]|否则|不然|反之|\bif\b|\botherwise\b", part, re.IGNORECASE
    ) is not None and not _EXEMPT.search(part)


def _read(part: str, concluded: bool) -> Clause:
    cleared = _TWICE_DENIED.sub("", _HARMLESS.sub("", part))
    found = _ONE.findall(cleared)
    letters = _letters(found)
    texts = letters if all(one.startswith(OPTION) for one in found) else ""
    corrects = _CORRECTS.search(cleared) is not None
    concludes = concluded or _CONCLUDES.search(cleared) is not None
    if not letters:
        return Clause("", corrects=corrects, concludes=concludes)
    for pattern in (_ASKS_WRONG, _EXCEPT):
        if (match := pattern.search(cleared)) and not _ASKS.search(cleared):
            return Clause(_letters([match[1]]), "stated", concludes=concludes, corrects=corrects)
    if re.search(rf"(?<![排去删剔消免])除了?{_GROUP}(?:选?项)?(?:以外|之外|外)", cleared):
        return Clause(letters, texts=texts, open=True, corrects=corrects)
    if _COMPARISON.search(cleared) and not _ASKS.search(cleared):
        for pattern in _COMPARES:
            if match := pattern.search(cleared):
                return Clause(_letters([match[1]]), "called right", concludes=concludes, corrects=corrects)
    if _ASKS.search(cleared) or (_OPEN.search(_EXEMPT.sub("", cleared))):
        return Clause(letters, texts=texts, open=True, corrects=corrects)
    if _DENIES.search(cleared) or re.search(rf"[不没非未](?:太|很|大)?{OPTION}", cleared):
        return Clause(letters, denied=letters, corrects=corrects, retracts=bool(_CONTRASTS.search(cleared)))
    if not _FILLER.sub("", _ONE.sub("", cleared)):
        stated = re.search(r"答案|选(?!项)|应该|answer", cleared)
        after = _letters(_ONE.findall(_AFTER_ANSWER.split(cleared)[-1])) if stated else ""
        return Clause(after or letters, "stated" if stated else "alone", texts, corrects=corrects, concludes=concludes)
    for weight, patterns in (("stated", _STATES), ("called right", _RIGHT)):
        for pattern in patterns:
            if match := pattern.search(cleared):
                if weight == "stated" and _SUPPOSED_CHOICE.match(cleared, match.end(1)):
                    return Clause(letters, texts=texts, open=True, corrects=corrects)
                return Clause(_letters([match[1]]), weight, texts, corrects=corrects, concludes=concludes)
    return Clause(letters, "stated" if corrects else "", texts, corrects=corrects)


def _letters(found: Sequence[str]) -> str:
    return "".join(dict.fromkeys(letter for one in found for letter in _each(one)))


def _each(text: str) -> Iterator[str]:
    """Yields the letters of a group; a run such as AB yields two."""
    for one in _ONE.findall(text):
        yield from one.removeprefix(OPTION)
