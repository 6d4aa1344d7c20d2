"""Respondents of known attitude, and some of none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from respondents import Oracle, options_of

from evals.models.subject import Settings
from evals.tasks.benchmarks import BENCHMARKS
from evals.tasks.scales.schema import CAMI, Item, read_scale
from evals.tasks.scales.task import all_asked, evaluate

SCALE = read_scale(CAMI)
SETTINGS = Settings(seed=0, limits={})
PREJUDICED_WHEN_HIGH = ("authoritarianism", "social_restrictiveness")


def item_of(prompt: str) -> Item:
    return next(item for item in SCALE.items if item.text in prompt)


def respondent(agrees: Callable[[Item], str]) -> Oracle:
    """Chooses a point of agreement by the item, under whatever letter it stands."""

    def decide(prompt: str) -> str:
        wanted = agrees(item_of(prompt))
        return next(letter for letter, text in options_of(prompt).items() if text == wanted)

    return Oracle(decide)


def prejudiced(item: Item) -> str:
    high = SCALE.subscales[item.subscale].high == "prejudiced"
    return "非常同意" if high != item.reversed else "非常不同意"


def tolerant(item: Item) -> str:
    return {"非常同意": "非常不同意", "非常不同意": "非常同意"}[prejudiced(item)]


def test_the_most_and_the_least_prejudiced_are_at_opposite_ends_of_every_subscale() -> None:
    worst, best = evaluate(respondent(prejudiced), SCALE, SETTINGS), evaluate(respondent(tolerant), SCALE, SETTINGS)
    for method in ("likelihood", "generation"):
        for name in SCALE.subscales:
            end = 5.0 if name in PREJUDICED_WHEN_HIGH else 1.0
            assert worst[method]["subscales"][name]["mean"] == end
            assert best[method]["subscales"][name]["mean"] == 6.0 - end
        for scores in (worst[method], best[method]):
            assert (scores["no_answer"], scores["distance"], scores["favorite"]) == (0.0, 0.0, 0)
            assert (scores["same_answer"], scores["phrasings_agree"], scores["opposites"]) == (1.0, 1.0, 1.0)
    assert worst["authoritarianism"] == 5.0
    assert worst["n"] == 40 * 3 * 5


def test_always_a_agrees_with_nothing_in_particular_and_is_exposed() -> None:
    scores = evaluate(Oracle(lambda _: "A"), SCALE, SETTINGS)["likelihood"]
    assert {values["mean"] for values in scores["subscales"].values()} == {3.0}
    assert (scores["letters"]["A"], scores["favorite"], scores["same_answer"]) == (1.0, 1, 0.0)
    assert scores["distance"] == pytest.approx(0.8)


def test_who_agrees_with_everything_has_no_attitude_either() -> None:
    scores = evaluate(respondent(lambda _: "非常同意"), SCALE, SETTINGS)["generation"]
    for values in scores["subscales"].values():
        assert (values["mean"], values["forward"], values["reversed"]) == (3.0, 5.0, 1.0)
    assert (scores["opposites"], scores["same_answer"]) == (0.0, 1.0)


def test_no_answers_are_counted_and_bound_the_mean() -> None:
    def decide(prompt: str) -> str:
        item = item_of(prompt)
        if item.subscale == "benevolence":
            return ""
        if item.id in ("A1", "A2"):
            return "我没有立场"
        return "A"

    metrics = evaluate(Oracle(decide), SCALE, Settings(seed=0, limits={}, methods=("generation",)))
    scores = metrics["generation"]
    assert scores["no_answer"] == pytest.approx(12 / 40)
    assert metrics["faults"]["counts"] == {"the model wrote nothing": 150}
    silent, some = scores["subscales"]["benevolence"], scores["subscales"]["authoritarianism"]
    assert (silent["mean"], silent["interval"], silent["bounds"], silent["answered"]) == (None, None, [1.0, 5.0], 0.0)
    assert some["answered"] == pytest.approx(0.8)
    assert some["bounds"] == pytest.approx([(8 * 3 + 2 * 1) / 10, (8 * 3 + 2 * 5) / 10])


def test_every_point_stands_under_every_letter_in_every_phrasing() -> None:
    asked = all_asked(SCALE)
    first = [one for one in asked if one.item.id == "A1"]
    assert {(one.phrasing, one.question.options[0]) for one in first} == {
        (p, o) for p in range(3) for o in SCALE.points
    }
    assert len({one.prompt(SCALE) for one in asked}) == 600
    assert first[0].prompt(SCALE).splitlines()[2] == "A. 非常同意"


def test_a_question_that_does_not_fit_is_a_missing_answer() -> None:
    oracle = Oracle(lambda _: "A", longest=5)
    metrics = evaluate(oracle, SCALE, SETTINGS)
    assert oracle.asked == []
    assert metrics["likelihood"]["no_answer"] == 1.0
    assert metrics["faults"]["counts"] == {"longer than the context": 600}


@pytest.mark.parametrize("method", ["likelihood", "generation"])
def test_the_headlines_of_scales_are_among_the_metrics(method: str) -> None:
    scores = evaluate(Oracle(lambda _: "不知道"), SCALE, Settings(seed=0, limits={}, methods=(method,)))
    assert scores[BENCHMARKS["scale"].headline] == scores[method]["no_answer"]
    assert BENCHMARKS["cami"].headline in scores
