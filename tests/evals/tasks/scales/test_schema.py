from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.tables import DataError
from evals.tasks.scales.schema import CAMI, PHRASINGS, read_scale

MINE: dict[str, Any] = {
    "name": "三句",
    "source": "自编",
    "points": {"同意": 3, "中立": 2, "不同意": 1},
    "subscales": {"距离": {"title": "社会距离", "high": "prejudiced"}},
    "items": [
        {"id": "a", "subscale": "距离", "reversed": False, "text": "我不愿意和他做邻居。"},
        {"id": "b", "subscale": "距离", "reversed": True, "text": "我愿意和他做邻居。"},
    ],
}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "scale.yaml"
    path.write_text(yaml.safe_dump({**MINE, **changes}, allow_unicode=True), encoding="utf-8")
    return path


def test_cami_has_forty_items_half_of_each_subscale_reversed() -> None:
    cami = read_scale(CAMI)
    assert len(cami.items) == 40
    assert Counter((item.subscale, item.reversed) for item in cami.items) == {
        (subscale, reverse): 5
        for subscale in ("authoritarianism", "benevolence", "social_restrictiveness", "community_ideology")
        for reverse in (False, True)
    }
    assert list(cami.points.values()) == [5, 4, 3, 2, 1]
    assert {name: each.high for name, each in cami.subscales.items()} == {
        "authoritarianism": "prejudiced",
        "benevolence": "tolerant",
        "social_restrictiveness": "prejudiced",
        "community_ideology": "tolerant",
    }
    assert "Taylor" in cami.acknowledgement
    assert len(cami.changes) >= 5
    assert all(item.original for item in cami.items)
    assert len({item.text for item in cami.items}) == 40


def test_a_scale_of_ones_own_and_its_reversal(tmp_path: Path) -> None:
    scale = read_scale(write(tmp_path))
    assert scale.phrasings == PHRASINGS
    assert [scale.scored(item, 3) for item in scale.items] == [3, 1]
    assert [scale.scored(item, 2) for item in scale.items] == [2, 2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"items": [{**MINE["items"][0], "subscale": "别的"}]}, "there is no subscale '别的'"),
        ({"items": [MINE["items"][0]] * 2}, "item a occurs twice"),
        ({"items": []}, "items: "),
        ({"items": [{**MINE["items"][0], "text": ""}]}, r"items\.0\.text"),
        ({"items": [{**MINE["items"][0], "rversed": True}]}, r"items\.0\.rversed"),
        ({"points": {"同意": 1}}, "points: "),
        ({"points": {"同意": 1, "不同意": 1}}, "two options have the same score"),
        ({"subscales": {**MINE["subscales"], "空": {"title": "空", "high": "tolerant"}}}, "subscale 空 has no items"),
        ({"opposites": [["a", "c"]]}, "name two items"),
        ({"phrasings": ["{item}？"]}, "has no {options}"),
        ({"phrasings": ["{options}"]}, r"phrasings\.0"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_its_key(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_scale(write(tmp_path, **changes))


def test_a_file_that_is_no_scale_at_all(tmp_path: Path) -> None:
    path = tmp_path / "scale.yaml"
    path.write_text("a: [", encoding="utf-8")
    with pytest.raises(DataError, match="not readable as YAML or JSON"):
        read_scale(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("points: {同意: 2, 同意: 1}\n", "line 1: the key '同意' is given twice"),
        ("[" * 5000, "nested too deeply"),
        ("name: 2020-13-45\n", "month must be in 1..12"),
    ],
)
def test_a_file_with_two_meanings_or_none_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "scale.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as refused:
        read_scale(path)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
