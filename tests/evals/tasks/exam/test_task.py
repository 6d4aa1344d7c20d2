"""Respondents that are known beforehand: always one letter, always right, none."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from respondents import Oracle, options_of

from data.choices.question import LETTERS
from data.tables import DataError
from evals.models.subject import Settings
from evals.tasks.exam.questions import Exam, Question
from evals.tasks.exam.task import evaluate, sampled
from evals.tasks.faults import Fault

OPTIONS = ("肝", "心", "脾", "肺")
SETTINGS = Settings(seed=0, limits={}, shots=(0, 2))


def questions() -> list[Question]:
    """Forty questions of two subjects; 16 are answered by A."""
    answers = [0] * 16 + [1] * 8 + [2] * 8 + [3] * 8
    return [Question(f"x.csv:{n}", f"科{n % 2}", f"第{n}题", OPTIONS, answer) for n, answer in enumerate(answers)]


def exam(*more: Question) -> Exam:
    examples = {f"科{n}": [Question("dev:1", f"科{n}", f"例{n}{i}", OPTIONS, i) for i in range(4)] for n in range(2)}
    faults = [Fault(question.fault, question.where) for question in more if question.fault]
    return Exam("cmmlu", [*questions(), *more], examples, faults)


def lookup(prompt: str) -> str:
    """The letter of the right option wherever it stands."""
    number = int(prompt.rpartition("题目：第")[2].partition("题")[0])
    right = OPTIONS[questions()[number].answer]
    return next(letter for letter, text in options_of(prompt).items() if text == right)


def test_a_lookup_model_is_right_everywhere() -> None:
    metrics = evaluate(Oracle(lookup), exam(), SETTINGS)
    for method in ("likelihood", "generation"):
        for shots in ("0_shot", "2_shot"):
            assert metrics[method][shots]["accuracy"] == 1.0
            assert metrics[method][shots]["macro"] == 1.0
    rotation = metrics["likelihood"]["0_shot"]["rotation"]
    assert (rotation["accuracy"], rotation["always_right"], rotation["same_option"]) == (1.0, 1.0, 1.0)
    assert (rotation["distance"], rotation["favorite"]) == (0.0, 0)


def test_always_a_scores_the_share_of_a_and_rotation_tells() -> None:
    metrics = evaluate(Oracle(lambda _: "A"), exam(), SETTINGS)
    for method in ("likelihood", "generation"):
        scores = metrics[method]["0_shot"]
        assert scores["accuracy"] == pytest.approx(16 / 40)
        assert scores["letters"] == {"A": 40, "B": 0, "C": 0, "D": 0}
        assert scores["answers"] == {"A": 16, "B": 8, "C": 8, "D": 8}
    rotation = metrics["likelihood"]["2_shot"]["rotation"]
    assert rotation["accuracy"] == pytest.approx(1 / 4)
    assert (rotation["always_right"], rotation["same_option"], rotation["favorite"]) == (0.0, 0.0, 1)
    assert rotation["distance"] == pytest.approx(3 / 4)
    low, high = metrics["accuracy_interval"]
    assert low < 16 / 40 < high


def test_no_answer_is_wrong_and_counted() -> None:
    settings = Settings(seed=0, limits={}, methods=("generation",), shots=(0,))
    silent = evaluate(Oracle(lambda _: " \n"), exam(), settings)
    assert (silent["accuracy"], silent["generation"]["0_shot"]["no_answer"]) == (0.0, 40)
    assert silent["faults"]["counts"] == {"the model wrote nothing": 40}
    vague = evaluate(Oracle(lambda _: "不好说"), exam(), settings)
    assert (vague["accuracy"], vague["generation"]["0_shot"]["no_answer"], vague["faults"]["counts"]) == (0.0, 40, {})


def test_an_unusable_question_is_wrong_and_never_asked() -> None:
    broken = Question("x.csv:99", "科1", "第99题", ("肝", ""), -1, "option missing")
    oracle = Oracle(lookup)
    metrics = evaluate(oracle, exam(broken), SETTINGS)
    assert metrics["accuracy"] == pytest.approx(40 / 41)
    assert metrics["likelihood"]["0_shot"]["by_subject"]["科1"]["n"] == 21
    assert metrics["faults"]["counts"] == {"option missing": 1}
    assert metrics["faults"]["named"] == ["x.csv:99: option missing"]
    assert not any("第99题" in text for text in oracle.asked)
    assert metrics["likelihood"]["0_shot"]["rotation"]["n"] == 40


def test_examples_come_first_and_go_where_they_do_not_fit() -> None:
    oracle = Oracle(lookup)
    evaluate(oracle, exam(), Settings(seed=0, limits={}, methods=("generation",), shots=(2,)))
    assert oracle.asked[0] == (
        "以下是关于科0的单项选择题，请直接给出正确答案的选项。\n\n"
        "题目：例00\nA. 肝\nB. 心\nC. 脾\nD. 肺\n答案是：A\n\n"
        "题目：例01\nA. 肝\nB. 心\nC. 脾\nD. 肺\n答案是：B\n\n"
        "题目：第0题\nA. 肝\nB. 心\nC. 脾\nD. 肺\n答案是："
    )
    settings = Settings(seed=0, limits={}, methods=("likelihood",), shots=(2,), rotate=False)
    short = evaluate(Oracle(lookup, longest=100), exam(), settings)
    assert (short["accuracy"], short["likelihood"]["2_shot"]["dropped_examples"]) == (1.0, 40)
    shorter = evaluate(Oracle(lookup, longest=10), exam(), settings)
    assert shorter["accuracy"] == 0.0
    assert shorter["faults"]["counts"] == {"longer than the context": 40}


def test_a_sample_keeps_the_order_and_its_own_faults() -> None:
    whole = exam(Question("x.csv:99", "科1", "", (), -1, "question missing"))
    few = sampled(whole, 10, seed=1)
    wheres = [question.where for question in whole.questions]
    assert len(few.questions) == 10
    assert [q.where for q in few.questions] == sorted((q.where for q in few.questions), key=wheres.index)
    assert sampled(whole, 10, seed=1) == few != sampled(whole, 10, seed=2)
    assert sampled(whole, 41, seed=1) is whole


def test_rotation_moves_every_option_through_every_letter() -> None:
    question = questions()[20]
    turned = [question.rotated(by) for by in range(4)]
    assert {q.options[q.answer] for q in turned} == {OPTIONS[question.answer]}
    assert Counter(q.answer for q in turned) == dict.fromkeys(range(4), 1)
    assert {q.letters for q in turned} == {LETTERS[:4]}


def several(count: int = 6) -> list[Question]:
    """Questions of which the first two options and another are right, five options each."""
    options = (*OPTIONS, "肾")
    return [Question(f"y.csv:{n}", "科0", f"多{n}题", options, 0, more_answers=(1, 2 + n % 3)) for n in range(count)]


def both(prompt: str) -> str:
    """The right letters, of a question of either sort."""
    if "多项" not in prompt:
        return lookup(prompt)
    return "AB" + "CDE"[int(prompt.rpartition("题目：多")[2].partition("题")[0]) % 3]


def test_several_right_options_are_asked_by_generation_and_all_must_be_chosen() -> None:
    mixed = Exam("cmmlu", [*questions(), *several()], {})
    oracle = Oracle(both)
    metrics = evaluate(oracle, mixed, Settings(seed=0, limits={}, shots=(0,)))
    assert (metrics["accuracy"], metrics["n"]) == (1.0, 46)
    written, likely = metrics["generation"]["0_shot"], metrics["likelihood"]["0_shot"]
    assert (written["accuracy"], written["n"], written["several_answers"]) == (1.0, 46, {"accuracy": 1.0, "n": 6})
    assert (likely["accuracy"], likely["n"], likely["not_asked"]) == (1.0, 40, 6)
    assert written["answers"] == {"A": 22, "B": 14, "C": 10, "D": 10, "E": 2}
    assert any(text.startswith("以下是关于科0的多项选择题，请直接给出所有正确答案的选项。") for text in oracle.asked)
    one = evaluate(Oracle(lambda _: "A"), mixed, Settings(seed=0, limits={}, shots=(0,), methods=("generation",)))
    assert one["generation"]["0_shot"]["several_answers"]["accuracy"] == 0.0


def test_several_right_options_alone() -> None:
    only = Exam("exam", several(), {})
    assert list(evaluate(Oracle(both), only, Settings(seed=0, limits={}, shots=(0,))))[:3] == [
        "accuracy",
        "accuracy_interval",
        "generation",
    ]
    with pytest.raises(DataError, match="all 6 questions have several correct options.*--methods generation"):
        evaluate(Oracle(both), only, Settings(seed=0, limits={}, shots=(0,), methods=("likelihood",)))


def test_examples_of_a_question_with_several_right_options_have_several() -> None:
    examples = {"科0": [*questions()[:2], *several(3)]}
    oracle = Oracle(both)
    mixed = Exam("exam", [questions()[2], several()[4]], examples)
    metrics = evaluate(oracle, mixed, Settings(seed=0, limits={}, shots=(5,), methods=("generation",)))
    assert metrics["generation"]["5_shot"]["shown_examples"] == {"2": 1, "3": 1}
    assert "多1题\nA. 肝\nB. 心\nC. 脾\nD. 肺\nE. 肾\n答案是：ABD\n\n" in oracle.asked[1]


def test_shots_are_called_what_they_were() -> None:
    settings = Settings(seed=0, limits={}, shots=(0, 5), methods=("generation",))
    metrics = evaluate(Oracle(lookup), exam(), settings)
    assert list(metrics["generation"]) == ["0_shot", "4_shot"]
    assert metrics["generation"]["4_shot"]["shown_examples"] == {"4": 40}
    assert metrics["faults"]["counts"] == {"fewer examples than asked for": 2}
    none = evaluate(Oracle(lookup), Exam("exam", questions(), {}), settings)
    assert list(none["generation"]) == ["0_shot"]
    assert none["generation"]["0_shot"]["shown_examples"] == {"0": 40}
    assert none["faults"]["named"][0] == "科0: fewer examples than asked for: has 0 of 5"


def test_a_limit_is_of_each_file() -> None:
    other = [replace(question, where=f"z.csv:{n}") for n, question in enumerate(questions()[:3])]
    few = sampled(Exam("exam", [*questions(), *other], {}), 5, seed=0)
    assert Counter(question.where.partition(":")[0] for question in few.questions) == {"x.csv": 5, "z.csv": 3}


@pytest.mark.parametrize("count", [2, 3, 5, 8, 10])
def test_questions_with_different_numbers_of_options_go_together(count: int) -> None:
    options = tuple(f"第{n}项" for n in range(count))
    wide = [Question(f"y.csv:{n}", "科0", f"第{n}题", options, n % count) for n in range(2 * count)]
    narrow = [Question(f"z.csv:{n}", "科1", f"第{n}题", options[:2], n % 2) for n in range(4)]

    def knows(prompt: str) -> str:
        given = options_of(prompt.rpartition("题目：")[2])
        number = int(prompt.rpartition("题目：第")[2].partition("题")[0])
        right = options[number % (count if "科0" in prompt else 2)]
        return next(letter for letter, text in given.items() if text == right)

    metrics = evaluate(Oracle(knows), Exam("exam", [*wide, *narrow], {}), SETTINGS)
    for method in ("likelihood", "generation"):
        assert metrics[method]["0_shot"]["accuracy"] == 1.0
    assert metrics["likelihood"]["0_shot"]["rotation"]["always_right"] == 1.0
