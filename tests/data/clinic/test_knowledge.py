from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from data.clinic.knowledge import ATTRIBUTES, load_knowledge
from data.tables import DataError

ENTRY = {
    "name": "感冒",
    "department": "全科",
    "symptoms": ["鼻塞", "咽痛", "打喷嚏"],
    "examinations": ["血常规", "咽部视诊"],
    "medicines": ["板蓝根", "复方氨酚"],
    "advice": ["多喝热水", "保证睡眠"],
}


def written(path: Path, *entries: object) -> Path:
    path.write_text(yaml.safe_dump(list(entries), allow_unicode=True, sort_keys=False), "utf-8")
    return path


def test_the_shipped_base_is_large_enough_and_marked_synthetic() -> None:
    knowledge = load_knowledge()
    assert len(knowledge.conditions) >= 64
    first_line = (Path(__file__).parents[3] / "data/clinic/conditions.yaml").read_text("utf-8").splitlines()[0]
    assert "SYNTHETIC" in first_line


def test_most_values_tell_conditions_apart() -> None:
    knowledge = load_knowledge()
    for attribute in ("symptoms", "examinations", "medicines", "advice"):
        pool = knowledge.pool(attribute)
        single = sum(len(knowledge.having(attribute, value)) == 1 for value in pool)
        assert single / len(pool) > 0.7, attribute


def test_values_pool_and_having(tmp_path: Path) -> None:
    other = ENTRY | {
        "name": "湿疹",
        "symptoms": ["红斑", "渗液", "鼻塞"],
        "examinations": ["皮肤镜", "血常规"],
        "advice": ["使用保湿霜", "不要搔抓"],
    }
    knowledge = load_knowledge(written(tmp_path / "k.yaml", ENTRY, other))
    one, two = knowledge.conditions
    assert one.values("department") == ("全科",)
    assert two.values("symptoms") == ("红斑", "渗液", "鼻塞")
    assert knowledge.pool("symptoms") == ("鼻塞", "咽痛", "打喷嚏", "红斑", "渗液")
    assert knowledge.having("symptoms", "鼻塞") == (one, two)
    assert knowledge.having("symptoms", "渗液") == (two,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"symptoms": []}, r"k\.yaml:1: 感冒: symptoms: must be a list of 3 to 5 values"),
        ({"symptoms": ["鼻塞", "咽痛", "鼻塞"]}, "感冒: symptoms: '鼻塞' is given twice"),
        ({"medicines": ["板蓝根", ""]}, "medicines: must be text of 2 to 6 characters, found ''"),
        ({"medicines": ["板蓝根", " 阿司匹林"]}, "medicines: must be text"),
        ({"name": "一个很长的名字啊"}, "name: must be text of 2 to 6 characters"),
        ({"department": ["全科"]}, "department: must be text"),
        ({"symptom": ["鼻塞"]}, "unknown field 'symptom'"),
        ({"medicines": ["板蓝根", "鼻塞"]}, "'鼻塞' is both a symptoms and one of medicines"),
        ({"medicines": ["板蓝根", "复方板蓝根"]}, "'板蓝根' is part of '复方板蓝根'"),
        ({"advice": ["多喝热水", "治好感冒"]}, "'感冒' is part of '治好感冒'"),
    ],
)
def test_bad_entries_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_knowledge(written(tmp_path / "k.yaml", ENTRY | change))


@pytest.mark.parametrize("field", ["name", *ATTRIBUTES])
def test_missing_fields_are_refused(tmp_path: Path, field: str) -> None:
    entry = {key: value for key, value in ENTRY.items() if key != field}
    with pytest.raises(DataError, match=f"'{field}' is missing"):
        load_knowledge(written(tmp_path / "k.yaml", entry))


def test_repeated_conditions_and_keys_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the condition '感冒' is given twice"):
        load_knowledge(written(tmp_path / "k.yaml", ENTRY, ENTRY))
    (tmp_path / "k.yaml").write_text("- name: 感冒\n  name: 湿疹\n", "utf-8")
    with pytest.raises(DataError, match="the key 'name' is given twice"):
        load_knowledge(tmp_path / "k.yaml")


def test_unreadable_bases_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        load_knowledge(tmp_path / "none.yaml")
    (tmp_path / "k.yaml").write_text("- [", "utf-8")
    with pytest.raises(DataError, match="not readable as YAML"):
        load_knowledge(tmp_path / "k.yaml")
    (tmp_path / "k.yaml").write_text("name: 感冒\n", "utf-8")
    with pytest.raises(DataError, match="must be a list of conditions"):
        load_knowledge(tmp_path / "k.yaml")
