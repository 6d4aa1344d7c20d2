"""The context of a number that shows that it is not personal: units, and labels of other numbers."""

from __future__ import annotations

import re
from typing import Final

CJK: Final = "\u3400-\u9fff\U00020000-\U0003ffff〇"
NUMBER_LINK: Final = (
    r"(?:[(（][^()（）\n0-9]{1,8}[)）])?[\"”']?[ ]*(?:是|为|[:：=|#])?[ ]*[\"“']?(?:(?:No|NO|no)\.?|№|#)?[ ]*[:：]?[ ]*"
)
"""Pattern of text between a label and its number: a remark in brackets, a verb or colon, JSON quotes, a table's bar."""

_UNITS: Final = (
    r"(?:[*×xX][ ]?10|[/／][ ]?[A-Za-zμµ]|[%‰℃]|拷贝|个(?!人)|万|亿|元|株|只|份|单位|国际单位|碱基|细胞|美元|人次|"
    r"(?:copies|copy|[kKMG]?IU|mIU|U|[cp]fu|CFU|PFU|cells?|[mnpμuk]?mol|[mnpμukf]?g|[mμud]?[lL]|[kM]?Bq|[kM]?Hz|bp|"
    r"kcal|kJ|[kmcnμ]m|ms|eq|vp)(?![A-Za-z]))"
)
_MEASURED: Final = re.compile(rf"(?:[ ]?(?:[-~～–—－至到]|\.\.)[ ]?[0-9][0-9.]*)?[ ]?{_UNITS}|\.[0-9]")
_OTHER_NUMBER: Final = re.compile(
    r"(?:编号|(?<!证)件号|编码|代码|批号|货号|单号|条码|条形码|文号|序列号|注册号|登记号|备案号|许可证号|流水号|订单号?|批次|合同号|专利号|"
    r"书号|刊号|产品号|标准号|准字[A-Z]?|(?<![A-Za-z])(?:No|NO|ID|PMID|DOI|ISBN|ISSN|CAS|NCT|ChiCTR|SKU)\.?)[是为]?[ :：#-]*$"
)
_BEFORE: Final = 16


def is_measured(text: str, end: int) -> bool:
    """Returns whether a number is followed by a unit or decimals, or by a range's other bound with a unit."""
    return _MEASURED.match(text, end) is not None


def is_other_number(text: str, start: int) -> bool:
    """Returns whether the label before a number shows that it is not personal, but that of an order or a product."""
    return _OTHER_NUMBER.search(text[max(0, start - _BEFORE) : start]) is not None
