"""Named entities: generated, parsed, and compared with the gold entities by micro precision, recall and F1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean

from data.chat import encode_prompt
from data.clinic.ner import NONE, ner_question, parse_entities
from evals.subject import Metrics, Row, Subject

Entity = tuple[str, str]
"""Type and text."""


def evaluate(subject: Subject, rows: Sequence[Row]) -> Metrics:
    """See `micro_scores`; with `unparseable`, the answers that list nothing and do not say so, counted as no entities,
    and `unfinished`, the share of answers cut off.
    """
    tokenizer, settings = subject.folder.tokenizer, subject.settings
    prompts = [encode_prompt(tokenizer, [{"role": "user", "content": ner_question(row["text"])}]) for row in rows]
    answers = subject.engine.generate(prompts, settings.ner_tokens, label="named entities")
    found = [parse_entities(answer.text) for answer in answers]
    # The answer's format lists an entity once, however often the sentence names it.
    gold = [{(entity["type"], entity["text"]) for entity in row["entities"]} for row in rows]
    silent = [answer.text.strip() for answer, entities in zip(answers, found, strict=True) if not entities]
    return {
        **micro_scores(found, gold),
        "unparseable": sum(text != NONE for text in silent),
        "unfinished": fmean(not answer.finished for answer in answers),
        "n": len(rows),
    }


def micro_scores(found: Sequence[Iterable[Entity]], gold: Sequence[Iterable[Entity]]) -> Metrics:
    """`precision`, `recall` and `f1` over all entities of all sentences, and the three counts that make them.

    An entity is right if its sentence has one of the same type and text; each gold entity is matched once. Precision is
    0 where nothing was found, recall is 0 where nothing was to be found.
    """
    pairs = [(Counter(one), Counter(other)) for one, other in zip(found, gold, strict=True)]
    right = sum((one & other).total() for one, other in pairs)
    n_found = sum(one.total() for one, _ in pairs)
    n_gold = sum(other.total() for _, other in pairs)
    return {
        "precision": right / n_found if n_found else 0.0,
        "recall": right / n_gold if n_gold else 0.0,
        "f1": 2 * right / (n_found + n_gold) if right else 0.0,
        "right": right,
        "found": n_found,
        "gold": n_gold,
    }
