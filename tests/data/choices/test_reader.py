"""One question in every layout in use, and what is no question says why."""

from __future__ import annotations

import json

import pytest

from data.choices.question import COUNTED, LETTERS, NO_ANSWER, NO_OPTION, NO_QUESTION, UNCLEAR, UnusableQuestion
from data.choices.reader import count_from, read_choice

TEXTS = ["甲", "乙", "丙", "丁", "戊", "己", "庚", "辛", "壬", "癸"]


def lettered(count: int = 4) -> dict[str, str]:
    return dict(zip(LETTERS, TEXTS[:count], strict=False))


LAYOUTS = {
    "C-Eval": {"id": 0, "question": "问", **lettered(), "answer": "B", "explanation": ""},
    "CMMLU": {"": "0", "Question": "问", **lettered(), "Answer": "B"},
    "CMB": {"question": "问", "option": {**lettered(), "E": ""}, "answer": "B", "question_type": "单项选择题"},
    "CMExam": {"Question": "问", "Options": "A 甲\nB 乙\nC 丙\nD 丁\nE ", "Answer": "B", "Explanation": None},
    "MedQA": {"question": "问", "options": lettered(), "answer": "乙", "answer_idx": "B", "meta_info": "卷一"},
    "MedQA by pairs": {"question": "问", "options": [{"key": k, "value": v} for k, v in lettered().items()], "answer": "乙"},
    "MedQA on the Hub": {"question": "问", "options": {**lettered(), "E": None}, "answer_idx": "B", "answer": "乙"},
    "MedMCQA": {"question": "问", "opa": "甲", "opb": "乙", "opc": "丙", "opd": "丁", "cop": 2, "exp": None, "choice_type": "single"},
    "MMLU": {"question": "问", "choices": TEXTS[:4], "answer": 2},
    "ARC": {"question": "问", "choices": {"text": TEXTS[:4], "label": ["A", "B", "C", "D"]}, "answerKey": "B"},
    "SeaEval": {"question": "问", "choices": ["(A) 甲", "(B) 乙", "(C) 丙", "(D) 丁"], "answer": "(B) 乙"},
    "numbered": {"question": "问", "option1": "甲", "option2": "乙", "option3": "丙", "option4": "丁", "answer": "2"},
    "one line": {"题目": "问", "选项": "A.甲 B.乙 C.丙 D.丁", "答案": "Ｂ"},
    "JSON in a cell": {"question": "问", "options": json.dumps(lettered()), "answer": "b"},
    "Python in a cell": {"question": "问", "options": str(lettered()), "answer": "答案：B。"},
    "instruction": {"instruction": "问", "input": "", "选项A": "甲", "选项B": "乙", "选项C": "丙", "选项D": "丁", "output": "B. 乙"},
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout):
    choice = read_choice(LAYOUTS[layout], 1)
    assert choice is not None
    assert (choice.question, list(choice.options), choice.answers, choice.explanation) == ("问", TEXTS[:4], (1,), "")
    assert choice.asked == "问\nA. 甲\nB. 乙\nC. 丙\nD. 丁"


@pytest.mark.parametrize("count", range(2, 11))
def test_any_number_of_options_and_blank_ones_at_the_end(count):
    for blank in ({}, dict.fromkeys(LETTERS[count:], ""), dict.fromkeys(LETTERS[count:])):
        for record in ({**lettered(count), **blank}, {"options": {**lettered(count), **blank}}):
            choice = read_choice({"question": "问", **record, "answer": LETTERS[count - 1]})
            assert choice is not None
            assert (choice.options, choice.answers) == (tuple(TEXTS[:count]), (count - 1,))


@pytest.mark.parametrize(
    ("key", "answers"),
    [
        ("ABD", (0, 1, 3)),
        ("D,B", (1, 3)),
        ("A、Ｃ", (0, 2)),
        (["C", "A"], (0, 2)),
        (["甲", "丁"], (0, 3)),
        ("A. 甲\nC. 丙", (0, 2)),
        ("（C）", (2,)),
        ("丁", (3,)),
        ("", ()),
        (None, ()),
    ],
)
def test_keys(key, answers):
    choice = read_choice({"question": "问", **lettered(), "answer": key})
    assert choice is not None
    assert choice.answers == answers


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"answer": "E"}, NO_ANSWER, "the answer is 'E'; it must be one of the options A, B, C, D"),
        ({"answer": "AA"}, NO_ANSWER, "'AA'"),
        ({"answer": "乙肝"}, NO_ANSWER, "'乙肝'"),
        ({"answer": "A. 乙"}, NO_ANSWER, "'A. 乙'"),
        ({"answer": True}, NO_ANSWER, "True"),
        ({"answer": 2}, COUNTED, "the number 2, and options may be counted from 0 or from 1; write letters"),
        ({"answer": "乙", "answer_idx": "A"}, UNCLEAR, "answer_idx and answer name different options"),
        ({"answer": "AB", "C": "AB"}, NO_ANSWER, "both an option's text and letters of options"),
        ({"answer": "甲", "B": "甲"}, NO_ANSWER, "the text of 2 options"),
        ({"B": " "}, NO_OPTION, "A to D: option B is missing"),
        ({"B": ["a", "b"]}, UNCLEAR, "it must be a text"),
        ({"question": " "}, NO_QUESTION, "no question"),
        ({"options": ["子", "丑"]}, UNCLEAR, "columns options and A to D hold different options"),
    ],
)
def test_what_is_wrong_is_said(change, kind, said):
    with pytest.raises(UnusableQuestion, match=said) as error:
        read_choice({"question": "问", **lettered(), "answer": "A", **change})
    assert error.value.kind == kind


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ("甲，乙，丙", UNCLEAR),
        ("A 甲\nC 丙", UNCLEAR),
        ("题 A.甲 B.乙", UNCLEAR),
        ({"one": "甲", "two": "乙"}, UNCLEAR),
        ([{"name": "甲", "good": True}], UNCLEAR),
        (["甲"], NO_OPTION),
        ([*TEXTS, "子"], NO_OPTION),
        ({"A": "甲", "C": "丙"}, NO_OPTION),
        (7, UNCLEAR),
    ],
)
def test_options_in_no_known_layout_are_refused(options, kind):
    with pytest.raises(UnusableQuestion, match="options") as error:
        read_choice({"question": "问", "options": options, "answer": "A"})
    assert error.value.kind == kind


def test_columns_that_seem_to_hold_options_are_named():
    with pytest.raises(UnusableQuestion, match="column distractor1, distractor2 seems to hold options"):
        read_choice({"question": "问", "distractor1": "甲", "distractor2": "乙", "answer": "丙"})
    with pytest.raises(UnusableQuestion, match="are empty"):
        read_choice({"question": "问", "A": "", "B": "", "answer": "A"})
    assert read_choice({"question": "问", "options": None, "answer": "多休息"}) is None
    assert read_choice({"question": "问", "A": "甲", "answer": "多休息", "question_type": "简答"}) is None


def test_options_keep_what_only_looks_like_a_mark():
    groups = ["A 族链球菌", "B 族链球菌"]
    assert read_choice({"question": "问", "options": groups, "answer": "A"}).options == tuple(groups)
    assert read_choice({"question": "问", "A": 0.5, "B": 10, "answer": "B"}).options == ("0.5", "10")


@pytest.mark.parametrize(
    ("keys", "first"), [([0, 1, 3], 0), ([1, 4], 1), ([1, 2], None), (["0", "1"], 0), (["A"], None)]
)
def test_where_numbers_count_from_is_told_by_the_whole_file(keys, first):
    assert count_from([{"question": "问", "choices": TEXTS[:4], "answer": key} for key in keys]) == first


def test_explanations_are_kept():
    assert read_choice({**LAYOUTS["MedMCQA"], "exp": "因为"}, 1).explanation == "因为"
    assert read_choice({**LAYOUTS["C-Eval"], "explanation": "因为"}).explanation == "因为"
