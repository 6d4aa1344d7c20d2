from __future__ import annotations

from collections import Counter
from statistics import mean

import pytest

from data.clinic import phrasing
from data.clinic.build import Clinic
from data.clinic.pretraining import LABELS
from data.clinic.questions import make_choices, make_open
from data.tables import DataError


def test_exactly_one_option_is_right(clinic: Clinic) -> None:
    attribute_of = {label: attribute for attribute, label in LABELS.items()}
    for row in make_choices(clinic.split, 0, 300):
        condition = next(c for c in clinic.split.knowledge.conditions if c.name in row["question"])
        true = condition.values(attribute_of[row["subject"]])
        assert [option in true for option in row["options"]] == [i == row["answer"] for i in range(4)]
        assert len(set(row["options"])) == 4


def test_positions_are_uniform_and_half_the_pairs_held_out(clinic: Clinic) -> None:
    attribute_of = {label: attribute for attribute, label in LABELS.items()}
    rows = make_choices(clinic.split, 0, 300)
    assert Counter(row["answer"] for row in rows) == dict.fromkeys(range(4), 75)
    heldout = [
        any(
            name in row["question"] and attribute == attribute_of[row["subject"]]
            for name, attribute in clinic.split.heldout
        )
        for row in rows
    ]
    assert 0.38 < mean(heldout) < 0.6


def test_references_are_short_good_and_true(clinic: Clinic) -> None:
    for row in make_open(clinic.split, 0, 100):
        reference = row["reference"]
        assert 25 <= len(reference) <= 70
        assert reference.startswith("您好，")
        assert reference.endswith(phrasing.SAFETY)
        condition = next(c for c in clinic.split.knowledge.conditions if c.name in row["question"])
        attribute = next(a for name, a in clinic.split.heldout if name == condition.name)
        assert all(value in reference for value in condition.values(attribute))


def test_asking_for_more_than_there_is(clinic: Clinic) -> None:
    with pytest.raises(DataError, match="only 160 different open questions can be made, not 1000"):
        make_open(clinic.split, 0, 1000)
    with pytest.raises(DataError, match="different choice questions can be made, not 100000"):
        make_choices(clinic.split, 0, 100000)
