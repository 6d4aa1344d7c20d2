from __future__ import annotations

from collections import Counter
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from transformers import AutoTokenizer

from data.clinic import phrasing
from data.clinic.answers import FLAWS
from data.clinic.build import Clinic
from data.clinic.dialogues import Row
from data.clinic.preferences import make_preferences


@pytest.fixture(scope="module")
def pairs(clinic: Clinic) -> list[Row]:
    return make_preferences(clinic.split, 5, 3600, heldout=False)


@pytest.fixture(scope="module")
def lengths(pairs: list[Row], clinic_folder: Path) -> dict[str, dict[str, int]]:
    """By unit and text, how long every answer is."""
    tokenizer: Any = AutoTokenizer.from_pretrained(clinic_folder / "tokenizer")
    texts = sorted({row[side] for row in pairs for side in ("chosen", "rejected")})
    return {
        "characters": {text: len(text) for text in texts},
        "tokens": dict(zip(texts, map(len, tokenizer(texts)["input_ids"]), strict=True)),
    }


def polite(text: str) -> bool:
    return text.startswith("您好，")


def safe(text: str) -> bool:
    return text.endswith(phrasing.SAFETY)


def told(text: str, name: str, clinic: Clinic) -> tuple[set[str], set[str]]:
    """The values in an answer that are this condition's, and those that are not."""
    condition = next(c for c in clinic.split.knowledge.conditions if c.name == name)
    attributes = ("department", "symptoms", "examinations", "medicines", "advice")
    own = {value for attribute in attributes for value in condition.values(attribute)}
    every = {value for attribute in attributes for value in clinic.split.knowledge.pool(attribute) if value in text}
    return every & own, every - own


def test_three_training_pairs_of_four_have_a_wrong_fact_and_heldout_pairs_each_flaw_equally(
    pairs: list[Row], clinic: Clinic
) -> None:
    assert Counter(row["flaw"] for row in pairs) == {flaw: 2700 if flaw == "wrong_fact" else 300 for flaw in FLAWS}
    heldout = make_preferences(clinic.split, 5, 40, heldout=True)
    assert Counter(row["flaw"] for row in heldout) == dict.fromkeys(FLAWS, 10)


def test_the_rejected_answer_has_its_flaw_and_no_other(pairs: list[Row], clinic: Clinic) -> None:
    names = [condition.name for condition in clinic.split.knowledge.conditions]
    for row in pairs:
        chosen, rejected, flaw = row["chosen"], row["rejected"], row["flaw"]
        name = next(n for n in names if n in chosen)
        assert polite(chosen)
        assert safe(chosen)
        assert told(chosen, name, clinic)[1] == set()
        assert polite(rejected) == (flaw != "rude")
        assert rejected.endswith("。") == (flaw != "cut_off")
        if flaw != "cut_off":
            assert safe(rejected) == (flaw != "missing_advice")
            right, wrong = told(rejected, name, clinic)
            assert (not right, bool(wrong)) == ((True, True) if flaw == "wrong_fact" else (False, False))


@pytest.mark.parametrize("unit", ["characters", "tokens"])
@pytest.mark.parametrize("flaw", [None, *FLAWS])
def test_length_does_not_tell(
    pairs: list[Row], lengths: dict[str, dict[str, int]], unit: str, flaw: str | None
) -> None:
    length = lengths[unit]
    rows = [row for row in pairs if flaw in (None, row["flaw"])]
    differences = [length[row["chosen"]] - length[row["rejected"]] for row in rows]
    longer = mean(0.5 if d == 0 else float(d > 0) for d in differences)
    # Characters are balanced flaw by flaw; tokens come out balanced over the table.
    tolerance = 0.12 if flaw and unit == "tokens" else 0.06
    assert abs(longer - 0.5) < tolerance
    # Nor does it where the difference is large.
    for least in range(10):
        assert abs(mean((d > least) - (d < -least) for d in differences)) / 2 < tolerance


def test_lengths_are_equal_on_average(pairs: list[Row]) -> None:
    difference = mean(len(row["chosen"]) - len(row["rejected"]) for row in pairs)
    assert abs(difference) < 0.8
