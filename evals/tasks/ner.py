"""Named entities: generated, read from the answer, and compared with the gold entities."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from data.chat import encode_prompt
from data.clinic.ner import TYPES, ner_question
from evals.metrics.entities import Gold, micro_scores, overlap_scores, read_entities
from evals.models.subject import Metrics, Row, Subject


def question(text: str, types: Sequence[str]) -> str:
    """The user's turn: the sample clinic's own where it is about the clinic's types, else one that tells the format."""
    if tuple(types) == TYPES:
        return ner_question(text)
    example = ";".join(f"{kind}:甲、乙" for kind in types[:2])
    return (
        f"找出下面病历文本中的实体，类型有{'、'.join(types)}。"
        f"每类写成“类型:实体、实体”，类与类之间用分号隔开，例如“{example}”；没有实体就回答“无”。\n文本：{text}"
    )


def evaluate(subject: Subject, rows: Sequence[Row]) -> Metrics:
    """The scores of `ner_metrics` for the model's greedy answers; with `unfinished`, the share of answers cut off.

    Args:
        rows: as `with_types` gives them.
    """
    tokenizer, settings = subject.folder.tokenizer, subject.settings
    types = rows[0]["types"]
    chats = [[{"role": "user", "content": question(row["text"], types)}] for row in rows]
    prompts = [encode_prompt(tokenizer, chat) for chat in chats]
    answers = subject.engine.generate(prompts, settings.ner_tokens, label="named entities")
    metrics = ner_metrics(rows, [answer.text for answer in answers], types)
    return metrics | {"unfinished": fmean(not answer.finished for answer in answers)}


def with_types(rows: Sequence[Row]) -> list[Row]:
    """The rows, each with the `types` of the whole table: what is asked must not depend on which rows are sampled."""
    types = types_of(rows)
    return [{**row, "types": types} for row in rows]


def types_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """The types of all gold entities; the clinic's, in their own order, where there are no others."""
    found = {entity["type"] for row in rows for entity in row["entities"]}
    return TYPES if found <= set(TYPES) else tuple(sorted(found))


def ner_metrics(rows: Sequence[Row], answers: Sequence[str], types: Sequence[str]) -> Metrics:
    """`precision`, `recall`, `f1` and their counts over all entities (see `micro_scores`), `overlap` (see
    `overlap_scores`), both again `by_type`; `empty`: answers without a character, `unparseable`: those that list nothing
    and do not say so. Both count as no entities.

    Args:
        types: what was asked for.
    """
    read = [read_entities(answer, types) for answer in answers]
    found = [entities or [] for entities in read]

    def scores(kinds: Sequence[str]) -> Metrics:
        listed = [[entity for entity in entities if entity[0] in kinds] for entities in found]
        known = [[Gold(e["type"], e["start"], e["end"]) for e in row["entities"] if e["type"] in kinds] for row in rows]
        # The answer's format lists an entity once, however often the sentence names it.
        once = [{(e["type"], e["text"]) for e in row["entities"] if e["type"] in kinds} for row in rows]
        return {
            **micro_scores(listed, once),
            "overlap": overlap_scores([row["text"] for row in rows], listed, known),
        }

    return {
        **scores(types),
        "by_type": {kind: scores([kind]) for kind in types},
        "empty": sum(not answer.strip() for answer in answers),
        "unparseable": sum(entities is None for entities in read),
        "n": len(rows),
    }
