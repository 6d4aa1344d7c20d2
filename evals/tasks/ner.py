"""Named entity recognition by generation: entities are parsed from the response and compared with the gold entities."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from data.chat import encode_prompt
from data.clinic.ner import TYPES, ner_question
from evals.metrics.entities import Gold, micro_scores, overlap_scores, read_entities
from evals.models.subject import Metrics, Row, Subject


def question(text: str, types: Sequence[str]) -> str:
    """Returns the user's turn: the sample clinic's wording for its entity types, else one that describes the format."""
    if tuple(types) == TYPES:
        return ner_question(text)
    example = ";".join(f"{kind}:甲、乙" for kind in types[:2])
    return (
        f"找出下面病历文本中的实体，类型有{'、'.join(types)}。"
        f"每类写成“类型:实体、实体”，类与类之间用分号隔开，例如“{example}”；没有实体就回答“无”。\n文本：{text}"
    )


def evaluate(subject: Subject, rows: Sequence[Row]) -> Metrics:
    """Evaluates greedy responses.

    Args:
        subject: the model under evaluation.
        rows: rows from `with_types`.

    Returns:
        The metrics of `ner_metrics`, and `unfinished`, the share of truncated responses.
    """
    tokenizer, settings = subject.folder.tokenizer, subject.settings
    types = rows[0]["types"]
    chats = [[{"role": "user", "content": question(row["text"], types)}] for row in rows]
    prompts = [encode_prompt(tokenizer, chat) for chat in chats]
    answers = subject.engine.generate(prompts, settings.ner_tokens, label="named entities")
    metrics = ner_metrics(rows, [answer.text for answer in answers], types)
    return metrics | {"unfinished": fmean(not answer.finished for answer in answers)}


def with_types(rows: Sequence[Row]) -> list[Row]:
    """Adds the entity types of the whole table to each row, so that prompts do not depend on which rows are sampled."""
    types = types_of(rows)
    return [{**row, "types": types} for row in rows]


def types_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """Returns the types of all gold entities; the sample clinic's types, in their order, if there are no others."""
    found = {entity["type"] for row in rows for entity in row["entities"]}
    return TYPES if found <= set(TYPES) else tuple(sorted(found))


def ner_metrics(rows: Sequence[Row], answers: Sequence[str], types: Sequence[str]) -> Metrics:
    """Computes the metrics of NER responses.

    Args:
        rows: rows with `text` and gold `entities`.
        answers: the responses.
        types: the requested entity types.

    Returns:
        - `precision`, `recall`, `f1`, and their counts over all entities; see `micro_scores`;
        - `overlap`: see `overlap_scores`;
        - `by_type`: all of the above for each type;
        - `empty`: number of empty responses; `unparseable`: number of responses that list no entities and do not state
          that there are none. Both count as responses without entities.
        - `n`: number of rows.
    """
    read = [read_entities(answer, types) for answer in answers]
    found = [entities or [] for entities in read]

    def scores(kinds: Sequence[str]) -> Metrics:
        listed = [[entity for entity in entities if entity[0] in kinds] for entities in found]
        known = [[Gold(e["type"], e["start"], e["end"]) for e in row["entities"] if e["type"] in kinds] for row in rows]
        # The response format lists an entity once, regardless of how often it occurs in the sentence.
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
