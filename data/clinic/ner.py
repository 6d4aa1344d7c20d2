"""Named entities: the format of an answer, and sentences with gold spans.

The format is defined only here: `疾病:A;症状:B、C;药物:D;检查:E`, with types in the order of `TYPES`; a type without
entities is omitted. Entities are in the order of the text, without duplicates. If there are none, the answer is `无`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from data.clinic.draws import draw_distinct
from data.clinic.knowledge import Condition
from data.clinic.split import Split

TYPES: Final = ("疾病", "症状", "药物", "检查")
NONE: Final = "无"
ATTRIBUTE_OF: Final = {"症状": "symptoms", "药物": "medicines", "检查": "examinations"}
INSTRUCTION: Final = "找出句中的疾病、症状、药物和检查：{text}"

# Slots name an entity's type; {科} is a department and {岁} an age, which are not entities. A slot may repeat.
TRAIN_TEMPLATES: Final = (
    "患者{岁}岁，因{症状}、{症状}就诊，查{检查}后诊断为{疾病}。",
    "他被确诊为{疾病}，医生开了{药物}和{药物}。",
    "近一周{症状}，昨天做了{检查}，结果还没出来。",
    "{药物}吃了三天，{症状}好多了，但还是{症状}。",
    "{科}王医生说，{疾病}要先做{检查}。",
    "入院后完善{检查}、{检查}，给予{药物}治疗。",
    "母亲有{疾病}多年，一直在用{药物}。",
    "主诉：{症状}两天，伴{症状}。",
    "初步考虑{疾病}，不排除{疾病}，建议复查{检查}。",
    "既往有{疾病}病史，否认{疾病}，长期服用{药物}。",
    "夜里突然{症状}，家人送到{科}，做了{检查}。",
    "停用{药物}，改为{药物}，观察{症状}有无减轻。",
    "护士问他有没有{症状}、{症状}或{症状}。",
    "今天到{科}复诊，一切正常。",
    "门诊以{疾病}收入{科}，{检查}提示异常，{症状}明显。",
    "孩子{岁}岁，{症状}，医生怀疑{疾病}，开了{药物}。",
    "出院带药：{药物}、{药物}、{药物}。",
    "因为{症状}去做{检查}，最后发现是{疾病}，用{药物}后缓解。",
)
# Half of the training sentences combine these in any order, so that a name's type must be inferred from the words next
# to it, not from its position in a known sentence.
TRAIN_CLAUSES: Final = (
    "{症状}三个月",
    "有时{症状}",
    "伴有{症状}和{症状}",
    "{症状}加重",
    "没有{症状}",
    "因{症状}来看病",
    "{岁}岁起就{症状}",
    "{症状}已经消失",
    "得了{疾病}",
    "像是{疾病}",
    "排除了{疾病}",
    "家里有人患{疾病}",
    "{疾病}多年未愈",
    "诊断是{疾病}",
    "按{疾病}处理",
    "{疾病}和{疾病}都有可能",
    "服{药物}",
    "每天两次{药物}",
    "{药物}无效",
    "换用{药物}",
    "加了{药物}和{药物}",
    "对{药物}过敏",
    "{药物}已经停了",
    "以前吃过{药物}",
    "{检查}正常",
    "做过{检查}",
    "等{检查}的报告",
    "{检查}和{检查}都查了",
    "明天查{检查}",
    "{检查}没有问题",
    "医生让做{检查}",
    "{检查}有异常",
    "到{科}看过",
    "住进{科}",
    "今年{岁}岁",
)
HELDOUT_TEMPLATES: Final = (
    "老人{岁}岁，反复{症状}，{检查}显示{疾病}，目前使用{药物}。",
    "来诊时{症状}、{症状}，拟诊{疾病}，先查{检查}。",
    "{疾病}患者用{药物}后仍有{症状}，转到{科}。",
    "建议先做{检查}，若确定为{疾病}，再用{药物}。",
    "半年前得过{疾病}，这次又出现{症状}和{症状}。",
    "复查{检查}和{检查}都好转，{药物}可以减量。",
    "{科}会诊后认为{症状}由{疾病}引起，加用{药物}。",
    "她说{症状}时会吃{药物}，没做过{检查}。",
)
_SLOT: Final = re.compile(r"\{(疾病|症状|药物|检查|科|岁)\}")


@dataclass(frozen=True)
class Entity:
    """A span `text[start:end]` of a sentence, in characters."""

    type: str
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Sentence:
    """A sentence with its entities."""

    text: str
    entities: tuple[Entity, ...]

    def as_row(self) -> dict[str, Any]:
        """Returns the sentence as a row of the NER table."""
        return {"text": self.text, "entities": [vars(entity) for entity in self.entities]}


def format_entities(entities: Iterable[tuple[str, str]]) -> str:
    """Returns the answer that lists `(type, text)` pairs, in the format that the module's docstring defines.

    Raises:
        ValueError: a type is not one of `TYPES`.
    """
    by_type: dict[str, list[str]] = {kind: [] for kind in TYPES}
    for kind, text in entities:
        if kind not in by_type:
            raise ValueError(f"unknown entity type '{kind}'; use {', '.join(TYPES)}")
        if text not in by_type[kind]:
            by_type[kind].append(text)
    return ";".join(f"{kind}:{'、'.join(texts)}" for kind, texts in by_type.items() if texts) or NONE


def ner_question(text: str) -> str:
    """Returns the user's turn that asks for the entities of a sentence, in training and in evaluation."""
    return INSTRUCTION.format(text=text)


def make_sentences(split: Split, seed: int, count: int, heldout: bool) -> list[Sentence]:
    """Returns `count` different sentences with random entities, which a model must read and cannot memorize.

    Half of the training sentences follow a template, and half are clauses in any order; none of them contains both a
    held-out pair's condition and one of its values. Held-out sentences use separate templates. Since every entity is
    drawn from several hundred names, their combinations are new, too (see `leaks.py`).
    """
    rng = random.Random(f"{seed}/ner/{heldout}")

    def draw(index: int) -> tuple[str, Sentence] | None:
        if heldout:
            template = rng.choice(HELDOUT_TEMPLATES)
        elif index % 2:
            template = rng.choice(TRAIN_TEMPLATES)
        else:
            template = "，".join(rng.sample(TRAIN_CLAUSES, rng.randint(2, 4))) + "。"
        sentence = _fill(template, split, rng)
        return (sentence.text, sentence) if heldout or not _states_heldout_pair(sentence, split) else None

    return draw_distinct(count, "NER sentences", draw)


def _fill(template: str, split: Split, rng: random.Random) -> Sentence:
    text, end = "", 0
    entities: list[Entity] = []
    for slot in _SLOT.finditer(template):
        text += template[end : slot.start()]
        end = slot.end()
        kind = slot.group(1)
        value = _draw(kind, split, rng)
        while any(entity.text == value for entity in entities):
            value = _draw(kind, split, rng)
        if kind in TYPES:
            entities.append(Entity(kind, len(text), len(text) + len(value), value))
        text += value
    return Sentence(text + template[end:], tuple(entities))


def _draw(kind: str, split: Split, rng: random.Random) -> str:
    if kind == "岁":
        return str(rng.randint(3, 88))
    if kind == "科":
        return rng.choice(split.knowledge.pool("department"))
    if kind == "疾病":
        return rng.choice(split.knowledge.conditions).name
    return rng.choice(split.knowledge.pool(ATTRIBUTE_OF[kind]))


def _states_heldout_pair(sentence: Sentence, split: Split) -> bool:
    def told(condition: Condition, attribute: str) -> bool:
        return any(value in sentence.text for value in condition.values(attribute))

    return any(c.name in sentence.text and told(c, attribute) for c, attribute in split.pairs(heldout=True))
