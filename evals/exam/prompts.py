"""The user's turn that asks a choice question, worded as CMMLU's and C-Eval's own scripts do.

CMMLU: Li et al., "CMMLU: Measuring massive multitask language understanding in Chinese" (2023), appendix; C-Eval: Huang
et al., "C-Eval: A Multi-Level Multi-Discipline Chinese Evaluation Suite for Foundation Models" (2023), figure 3.
"""

from __future__ import annotations

from collections.abc import Sequence

from evals.exam.questions import LETTERS, Question
from evals.exam.readers import CEVAL_MEDICAL, CMMLU_MEDICAL

_NAMES = {**CMMLU_MEDICAL, **CEVAL_MEDICAL}
_CMMLU_OPENING = "以下是关于{}的单项选择题，请直接给出正确答案的选项。\n\n"
_CEVAL_OPENING = "以下是中国关于{}考试的单项选择题，请选出其中的正确答案。\n\n"


def prompt(exam: str, question: Question, examples: Sequence[Question]) -> str:
    """The text that ends where the letter is to follow."""
    opening = (_CEVAL_OPENING if exam == "ceval" else _CMMLU_OPENING).format(
        _NAMES.get(question.subject, question.subject)
    )
    shown = "".join(f"{_asked(exam, example)}{LETTERS[example.answer]}\n\n" for example in examples)
    return opening + shown + _asked(exam, question)


def _asked(exam: str, question: Question) -> str:
    options = "".join(f"\n{letter}. {text}" for letter, text in zip(LETTERS, question.options, strict=False))
    if exam == "ceval":
        return f"{question.text}{options}\n答案："
    return f"题目：{question.text}{options}\n答案是："
