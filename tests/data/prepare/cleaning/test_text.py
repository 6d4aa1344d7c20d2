"""Cleaning of texts: what goes, what stays."""

from __future__ import annotations

from collections import Counter

import pytest

from data.prepare.cleaning.text import normalize, remove_markup
from data.prepare.privacy.masking import mask


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("ＣＴ１２３，（头痛）：Ａ", "CT123，（头痛）：A"),
        ("头\u200b痛\ufeff\x02\ue5e9。", "头痛。"),
        ("一 \r\r\n\n二\u3000\u3000三\r\n", "一\n\n二 三"),
        ("一\n\n\n\n\n二", "一\n\n二"),
        ("e\u0301", "é"),
        ("甲e\u200b\u0301乙", "甲é乙"),
        ("Ａ\u0301", "Á"),
        ("岐伯∶苦", "岐伯：苦"),
    ],
)
def test_normalize(before, after):
    assert normalize(before) == after
    assert normalize(after) == after


def test_every_character_is_looked_at():
    """Whatever `normalize` changes in a long text, it changes for each character alone: one look ahead leaves none out."""
    codes = [*range(0xD800), *range(0xE000, 0x20000), *range(0xF0000, 0x110000, 997), 0x10FFFF]
    characters = [chr(code) for code in codes]
    whole = normalize("".join(f"甲{one}乙\n" for one in characters)).split("\n")
    alone = "\n".join(normalize(f"甲{one}乙") for one in characters).split("\n")
    assert whole == alone


def test_html_goes_and_comparisons_stay():
    text = '<p class="a">血压&gt;140<br/>体温<38℃</p><script>x</script><!-- y -->&nbsp;A&B'
    assert remove_markup(text) == "血压>140\n体温<38℃\n A&B"


def test_marks_of_classics_go_and_their_printed_lines_are_joined():
    text = (
        "<目录>玉石类\n<篇名>丹砂\n\n内容：\\x《御览》\\x\n"
        + "甲" * 40
        + "\n"
        + "乙" * 5
        + "。\n"
        + "丙" * 39
        + "。\n丁"
    )
    assert remove_markup(text, ["内容"]) == "丹砂\n\n《御览》\n" + "甲" * 40 + "乙" * 5 + "。\n" + "丙" * 39 + "。\n丁"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("电话13812345678。", "电话【电话】。"),
        ("打+86 138-1234-5678或010-62345678，400-800-1234", "打【电话】或【电话】，【电话】"),
        ("身份证11010519491231002X号", "身份证【身份证】号"),
        ("写信到li.si_1@mail.example.com.cn吧", "写信到【邮箱】吧"),
        ("加微信：wx_doctor88，VX: abc12345", "加微信：【微信】，VX: 【微信】"),
    ],
)
def test_personal_numbers_are_masked(before, after):
    masked, count = mask(before)
    assert masked == after
    assert count.total() == after.count("【")
    assert mask(masked) == (masked, Counter())


@pytest.mark.parametrize(
    "text",
    [
        "每日3次，每次0.25g",
        "血压120-80",
        "编号138123456789012",
        "微信支付",
        "WeChat message",
        "2023-10-12",
        "公元1644-1911年",
        "1.13812345678",
    ],
)
def test_other_numbers_stay(text):
    assert mask(text) == (text, Counter())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("10.5×10&lt;sup&gt;9&lt;/sup&gt;/L", "10.5×10⁹/L"),
        ("&amp;lt;5mmol/L，&amp;nbsp;甲&amp;amp;乙", "<5mmol/L， 甲&乙"),
        ("若A&lt;b&gt;c，P&lt;B 且 C&gt;D", "若A<b>c，P<B 且 C>D"),
    ],
)
def test_html_that_was_escaped_goes_too(before, after):
    assert remove_markup(before) == after
    assert remove_markup(after) == after
