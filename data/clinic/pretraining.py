"""Pretraining text: every fact of the knowledge base in many phrasings, orders, and kinds of documents.

A small model memorizes a fact, and can use it in an unseen form, if training presents the fact in many forms: from the
condition to the value and back, alone and among others, in prose, lists, questions, and case notes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

from data.clinic.draws import draw_distinct
from data.clinic.knowledge import ATTRIBUTES, Condition, Knowledge

LABELS: Final = {
    "department": "科室",
    "symptoms": "症状",
    "examinations": "检查",
    "medicines": "药物",
    "advice": "建议",
}
STATEMENTS: Final = {
    "department": (
        "{name}属于{values}的疾病。",
        "{name}患者应前往{values}就诊。",
        "诊治{name}的科室是{values}。",
        "得了{name}要挂{values}的号。",
        "在医院里，{name}由{values}负责。",
        "{name}归{values}管理。",
    ),
    "symptoms": (
        "{name}的症状包括{values}。",
        "{name}患者常出现{values}。",
        "{name}的主要表现是{values}。",
        "{name}发病时可见{values}等症状。",
        "得了{name}会有{values}的表现。",
        "{values}是{name}的常见症状。",
    ),
    "examinations": (
        "诊断{name}常做的检查有{values}。",
        "{name}患者需要做{values}。",
        "怀疑{name}时应安排{values}。",
        "确诊{name}要查{values}。",
        "{name}的检查项目包括{values}。",
        "{values}可用来检查{name}。",
    ),
    "medicines": (
        "治疗{name}的药物有{values}。",
        "{name}常用{values}治疗。",
        "{name}患者可以使用{values}。",
        "得了{name}一般吃{values}。",
        "{name}的常用药包括{values}。",
        "{values}常用于治疗{name}。",
    ),
    "advice": (
        "{name}患者平时请{values}。",
        "{name}的注意事项是{values}。",
        "对{name}患者的生活建议：{values}。",
        "得了{name}，日常请{values}。",
        "护理{name}患者要做到：{values}。",
        "{values}，对{name}患者有好处。",
    ),
}
# Sentences that lead from one value back to the conditions that have it.
REVERSED: Final = {
    "department": ("到{value}看的病有{names}。", "{value}诊治{names}。", "{value}的常见病包括{names}。"),
    "symptoms": ("{value}见于{names}。", "出现{value}时要想到{names}。", "{value}是{names}的症状。"),
    "examinations": ("{value}用于检查{names}。", "做{value}可以帮助诊断{names}。", "{value}是{names}的检查项目。"),
    "medicines": ("{value}用于治疗{names}。", "{value}是{names}的常用药。", "服用{value}的多为{names}患者。"),
    "advice": ("“{value}”是给{names}患者的建议。", "医生常对{names}患者说：{value}。"),
}
KINDS: Final = {
    "symptoms": ("{value}是一种症状。", "{value}属于症状。"),
    "examinations": ("{value}是一种检查。", "{value}属于检查。"),
    "medicines": ("{value}是一种药物。", "{value}属于药物。"),
}
QUESTIONS: Final = {
    "department": ("{name}在哪科看？", "哪个科室看{name}？", "{name}是什么科的病？"),
    "symptoms": ("{name}的表现是什么？", "{name}都有什么症状？", "什么样的症状像{name}？"),
    "examinations": ("{name}查什么？", "哪些检查能查出{name}？", "{name}的检查有什么？"),
    "medicines": ("{name}服什么药？", "哪些药能治{name}？", "{name}用药是什么？"),
    "advice": ("{name}要留意什么？", "{name}患者怎么保养？", "{name}的生活建议是什么？"),
}
OPENERS: Final = ("关于{name}。", "{name}简介。", "今天介绍{name}。", "", "")


def make_documents(knowledge: Knowledge, seed: int, count: int, apart_from: Sequence[str] = ()) -> list[str]:
    """Returns `count` different documents.

    Args:
        apart_from: if given, held-out documents are made; these are the training documents, none of which contains a
            held-out document. About a tenth of the draws are of a kind that does not occur in training.
    """
    rng = random.Random(f"{seed}/pretrain/{bool(apart_from)}")
    known = "\0".join(apart_from)
    writers, weights = [writer for writer, _ in WRITERS], [weight for _, weight in WRITERS]

    def draw(_: int) -> tuple[str, str] | None:
        write = _lecture if apart_from and rng.random() < 0.1 else rng.choices(writers, weights)[0]
        document = write(knowledge, rng)
        return (document, document) if document not in known else None

    return draw_distinct(count, "documents", draw)


def _ordered(values: tuple[str, ...], rng: random.Random) -> list[str]:
    """Returns the values in the knowledge base's order with probability 1/2, else in random order."""
    return list(values) if rng.random() < 0.5 else rng.sample(values, len(values))


def _join(values: list[str], attribute: str, rng: random.Random) -> str:
    if attribute == "advice":
        return "，".join(values)
    if len(values) > 1 and rng.random() < 0.3:
        return "、".join(values[:-1]) + rng.choice("和及") + values[-1]
    return "、".join(values)


def _statement(condition: Condition, attribute: str, rng: random.Random) -> str:
    values = _join(_ordered(condition.values(attribute), rng), attribute, rng)
    return rng.choice(STATEMENTS[attribute]).format(name=condition.name, values=values)


def _entry(knowledge: Knowledge, rng: random.Random) -> str:
    """Returns an encyclopedia entry with three to five attributes in random order."""
    condition = rng.choice(knowledge.conditions)
    attributes = rng.sample(ATTRIBUTES, rng.randint(3, 5))
    opener = rng.choice(OPENERS).format(name=condition.name)
    return opener + "".join(_statement(condition, attribute, rng) for attribute in attributes)


def _listing(knowledge: Knowledge, rng: random.Random) -> str:
    """Returns a card with one labeled line per attribute."""
    condition = rng.choice(knowledge.conditions)
    mark = rng.choice(("：", "——", "："))
    lines = [
        f"{LABELS[a]}{mark}{_join(_ordered(condition.values(a), rng), a, rng)}"
        for a in rng.sample(ATTRIBUTES, rng.randint(3, 5))
    ]
    return "\n".join([f"{rng.choice(('疾病', '名称'))}{mark}{condition.name}", *lines])


def _asked(knowledge: Knowledge, rng: random.Random) -> str:
    """Returns questions and answers in prose."""
    condition = rng.choice(knowledge.conditions)
    parts = []
    for attribute in rng.sample(ATTRIBUTES, rng.randint(1, 3)):
        question = rng.choice(QUESTIONS[attribute]).format(name=condition.name)
        values = _join(_ordered(condition.values(attribute), rng), attribute, rng)
        answer = f"{values}。" if rng.random() < 0.4 else _statement(condition, attribute, rng)
        parts.append(f"问：{question}答：{answer}" if rng.random() < 0.6 else question + answer)
    return "".join(parts)


def _case(knowledge: Knowledge, rng: random.Random) -> str:
    """Returns a case note that leads from symptoms through examinations to the diagnosis and its treatment."""
    condition = rng.choice(knowledge.conditions)
    symptoms = "、".join(rng.sample(condition.symptoms, rng.randint(2, len(condition.symptoms))))
    examinations = "、".join(_ordered(condition.examinations, rng))
    medicines = "、".join(_ordered(condition.medicines, rng))
    patient = f"{rng.choice(('男', '女'))}，{rng.randint(3, 88)}岁"
    note = rng.choice(
        (
            f"患者{patient}，因{symptoms}就诊。{condition.department}做{examinations}后诊断{condition.name}。给予{medicines}。",
            f"病例：{patient}，{symptoms}。检查：{examinations}。诊断：{condition.name}。用药：{medicines}。",
            f"{condition.department}病历。{patient}。主诉{symptoms}，查{examinations}，考虑{condition.name}，处方{medicines}。",
        )
    )
    return note + (f"医嘱：{'，'.join(condition.advice)}。" if rng.random() < 0.5 else "")


def _reversed(knowledge: Knowledge, rng: random.Random) -> str:
    """Returns sentences that lead from values back to conditions, and some that state the kind of a value."""
    condition = rng.choice(knowledge.conditions)
    sentences = []
    for attribute in rng.sample(ATTRIBUTES, 3):
        value = rng.choice(condition.values(attribute))
        names = [c.name for c in knowledge.having(attribute, value)]
        sentences.append(rng.choice(REVERSED[attribute]).format(value=value, names="、".join(_ordered((*names,), rng))))
        if attribute in KINDS and rng.random() < 0.3:
            sentences.append(rng.choice(KINDS[attribute]).format(value=value))
    return "".join(sentences)


def _pair(knowledge: Knowledge, rng: random.Random) -> str:
    """Returns a comparison of two conditions in one or two attributes."""
    one, other = rng.sample(knowledge.conditions, 2)
    sentences = [f"{one.name}与{other.name}的区别。"]
    for attribute in rng.sample(ATTRIBUTES, rng.randint(1, 2)):
        sentences += [_statement(one, attribute, rng), _statement(other, attribute, rng)]
    return "".join(sentences)


def _sorting(knowledge: Knowledge, rng: random.Random) -> str:
    """Returns random values, listed and then sorted by kind, which trains a model to copy from the context."""
    drawn = [(a, value) for a in KINDS for value in rng.sample(knowledge.pool(a), rng.randint(1, 2))]
    rng.shuffle(drawn)
    listed = rng.choice(("出现的词语有", "词语：", "记录中提到")) + "、".join(value for _, value in drawn) + "。"
    sorts = [
        f"{LABELS[a]}：{'、'.join(v for kind, v in drawn if kind == a)}。" for a in rng.sample(tuple(KINDS), len(KINDS))
    ]
    return listed + "".join(sorts)


def _lecture(knowledge: Knowledge, rng: random.Random) -> str:
    """Returns a held-out lecture, which connects the attributes in sentences that no other kind of document has."""
    c = rng.choice(knowledge.conditions)
    return (
        f"说说{c.name}。有{'、'.join(c.symptoms)}的人，可到{c.department}做{'、'.join(c.examinations)}，"
        f"多用{'、'.join(c.medicines)}，还请{'，'.join(c.advice)}。"
    )


# The kinds of training documents and their relative frequencies.
WRITERS: Final[tuple[tuple[Callable[[Knowledge, random.Random], str], int], ...]] = (
    (_entry, 34),
    (_listing, 12),
    (_asked, 22),
    (_case, 12),
    (_reversed, 16),
    (_pair, 8),
    (_sorting, 12),
)
