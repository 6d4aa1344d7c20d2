"""What a written answer to a question with several correct options chooses."""

from __future__ import annotations

import pytest

from evals.tasks.exam.several import chosen_options

OPTIONS = ("胃镜", "心电图", "胸片", "头颅CT", "血常规")


@pytest.mark.parametrize(
    ("answer", "chosen"),
    [
        ("ABD", {0, 1, 3}),
        ("A、C、E", {0, 2, 4}),
        ("Ａ，Ｃ", {0, 2}),
        ("答案是：ACE。", {0, 2, 4}),
        ("本题选BD", {1, 3}),
        ("A. 胃镜\nD. 头颅CT", {0, 3}),
        ("B", {1}),
        ("答案是AB。也可以说答案是AC。", set()),
        ("不好说", set()),
        ("CT检查", set()),
        ("F", set()),
        ("", set()),
        ("\\boxed{ABD}", {0, 1, 3}),
        ('{"answer": ["A", "B", "D"]}', {0, 1, 3}),
        ("A选项错误，BCD正确", {1, 2, 3}),
        ("A对B错C对D错E错", {0, 2}),
        ("A, B, and D are correct.", {0, 1, 3}),
        ("因为A和C都不对，所以选BD", {1, 3}),
        ("答案是AB。更正：答案是ABD", {0, 1, 3}),
        ("胃镜、心电图、头颅CT", {0, 1, 3}),
        ("不选A", set()),
        ("答案不是AB", set()),
        ("选A吗？", set()),
        ("易错选AB", set()),
        ("他们选AB", set()),
    ],
)
def test_chosen_options(answer: str, chosen: set[int]) -> None:
    assert chosen_options(answer, "ABCDE", OPTIONS) == chosen
