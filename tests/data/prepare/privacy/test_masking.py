"""Kinds of personal data, each of which can be kept."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import ConfigError
from data.prepare.options import Options
from data.prepare.privacy.identity_cards import is_checked
from data.prepare.privacy.kinds import KINDS
from data.prepare.privacy.masking import find_personal, mask

TEXT = "姓名：王某明，电话：13812345678，住院号：13912345678"


def test_kinds_that_are_kept_stay_as_they_are():
    assert mask(TEXT) == (
        "姓名：【姓名】，电话：【电话】，住院号：【病历号】",
        Counter(name=1, phone=1, record_number=1),
    )
    others = [kind for kind in KINDS if kind != "record_number"]
    assert mask(TEXT, others)[0] == "姓名：【姓名】，电话：【电话】，住院号：13912345678"
    assert mask(TEXT, []) == (TEXT, Counter())


def test_the_option_names_its_kinds():
    with pytest.raises(ConfigError, match="--keep fax: unknown kind; use email, "):
        Options("text", keep=("fax",))


def test_check_characters():
    assert is_checked("11010519491231002X")
    assert not is_checked("110105194912310021")


PARTS = st.sampled_from(
    [
        "姓名：",
        "王某明",
        "电话",
        "：",
        "，",
        "13812345678",
        "62345678",
        "住址：",
        "某市某路8号",
        "男",
        "【",
        "】",
        "【姓名】",
        "医保卡号",
        "A123456",
        "\n",
        " ",
        "/L",
        "-",
    ]
)


@settings(deadline=None, database=None, derandomize=True)
@given(st.lists(PARTS, max_size=12).map("".join))
def test_masking_is_done_in_order_and_without_overlaps(text):
    spans = find_personal(text)
    assert all(one.end <= other.start for one, other in pairwise(spans))
    masked, count = mask(text)
    assert count.total() == len(spans)
    assert masked.count("\n") == text.count("\n")
