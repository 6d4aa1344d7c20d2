"""The user's turn that asks a choice question, in the wording of CMMLU's and C-Eval's own scripts.

CMMLU: Li et al., "CMMLU: Measuring massive multitask language understanding in Chinese" (2023), appendix; C-Eval: Huang
et al., "C-Eval: A Multi-Level Multi-Discipline Chinese Evaluation Suite for Foundation Models" (2023), figure 3.
Neither has questions with several correct options; for these, the wording asks for all correct options.
"""

from __future__ import annotations

from collections.abc import Sequence

from data.choices.question import LETTERS
from evals.tasks.exam.questions import Question
from evals.tasks.exam.subjects import name_of

_CMMLU_OPENING = "以下是关于{}的单项选择题，请直接给出正确答案的选项。\n\n"
_CEVAL_OPENING = "以下是中国关于{}考试的单项选择题，请选出其中的正确答案。\n\n"
_SEVERAL_OPENING = "以下是关于{}的多项选择题，请直接给出所有正确答案的选项。\n\n"


def prompt(exam: str, question: Question, examples: Sequence[Question]) -> str:
    """Returns the prompt: the opening, the examples with their answers, and the question up to its answer."""
    opening = _CEVAL_OPENING if exam == "ceval" else _CMMLU_OPENING
    if question.has_several_answers:
        opening = _SEVERAL_OPENING
    shown = "".join(f"{_asked(exam, example)}{example.key}\n\n" for example in examples)
    return opening.format(name_of(exam, question.subject)) + shown + _asked(exam, question)


def _asked(exam: str, question: Question) -> str:
    options = "".join(f"\n{letter}. {text}" for letter, text in zip(LETTERS, question.options, strict=False))
    if exam == "ceval":
        return f"{question.text}{options}\n答案："
    return f"题目：{question.text}{options}\n答案是："
