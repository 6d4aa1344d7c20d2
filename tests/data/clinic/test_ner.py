from __future__ import annotations

import pytest

from data.clinic.build import Clinic
from data.clinic.ner import TYPES, format_entities, make_sentences
from evals.metrics.entities import read_entities


def test_the_format() -> None:
    entities = [("检查", "胃镜"), ("症状", "反酸"), ("疾病", "胃炎"), ("症状", "黑便"), ("症状", "反酸")]
    assert format_entities(entities) == "疾病:胃炎;症状:反酸、黑便;检查:胃镜"
    assert format_entities([]) == "无"
    with pytest.raises(ValueError, match="unknown entity type '科室'"):
        format_entities([("科室", "眼科")])


def test_spans_and_round_trip(clinic: Clinic) -> None:
    sentences = make_sentences(clinic.split, 3, 300, heldout=False) + make_sentences(clinic.split, 3, 100, heldout=True)
    assert {entity.type for s in sentences for entity in s.entities} == set(TYPES)
    for sentence in sentences:
        for entity in sentence.entities:
            assert sentence.text[entity.start : entity.end] == entity.text
        pairs = [(entity.type, entity.text) for entity in sentence.entities]
        assert set(read_entities(format_entities(pairs), TYPES) or []) == set(pairs)


def test_every_name_in_a_sentence_is_marked(clinic: Clinic) -> None:
    knowledge = clinic.split.knowledge
    names = {c.name for c in knowledge.conditions}
    for attribute in ("symptoms", "medicines", "examinations"):
        names |= set(knowledge.pool(attribute))
    for sentence in make_sentences(clinic.split, 3, 200, heldout=True):
        assert {n for n in names if n in sentence.text} == {entity.text for entity in sentence.entities}


def test_heldout_combinations_are_new(clinic: Clinic) -> None:
    def combinations(heldout: bool) -> list[frozenset[str]]:
        sentences = make_sentences(clinic.split, 3, 400, heldout)
        return [frozenset(e.text for e in s.entities) for s in sentences if len(s.entities) > 1]

    assert set(combinations(True)).isdisjoint(combinations(False))


def test_half_the_training_sentences_are_clauses_in_any_order(clinic: Clinic) -> None:
    sentences = make_sentences(clinic.split, 3, 400, heldout=False)
    shapes = []
    for sentence in sentences:
        shape, end = "", 0
        for entity in sentence.entities:
            shape += sentence.text[end : entity.start] + f"<{entity.type}>"
            end = entity.end
        shapes.append(shape + sentence.text[end:])
    # Eighteen templates, some with an age or a department, against thousands of orders of clauses.
    assert len(set(shapes[::2])) > 190
    assert len(set(shapes[1::2])) < 130
