from __future__ import annotations

import pytest

from evals.letters import chosen_option

OPTIONS = ["卵巢", "前庭大腺", "A型血", "乳腺"]


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        (" (C) 因为", "C"),
        ("Ｄ。", "D"),
        ("答案是B", "B"),
        ("正确答案：C。", "C"),
        ("经过分析，故选 D", "D"),
        ("我认为B选项正确", "B"),
        ("不是A，答案是C", "C"),
        ("排除A、B，选D", "D"),
        ("A型血", "C"),
        ("女性的生殖腺是卵巢。", "A"),
        ("前庭大腺", "B"),
        ("B前庭大腺", "B"),
        ("A、B都对", None),
        ("A和B都对", None),
        ("答案是A或者答案是B", None),
        ("维生素B族", None),
        ("卵巢或乳腺", None),
        ("不知道", None),
        ("", None),
        ("E", None),
        ("CT检查", None),
    ],
)
def test_the_letter_that_is_meant(answer: str, letter: str | None) -> None:
    chosen = chosen_option(answer, "ABCD", OPTIONS)
    assert (None if chosen is None else "ABCD"[chosen]) == letter
