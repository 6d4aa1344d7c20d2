"""Which answers are chosen, on a table small enough to do it by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from configs.errors import RunError
from trainers.config.rejection import SelectionConfig
from trainers.rejection.selection import best_of_n, chat_with, choose, global_top_k, report, verdicts

ROWS = [  # prompt_id, sample, tokens of the response, finished, reward
    (7, 0, 2, True, 1.0),
    (7, 1, 4, True, 3.0),
    (7, 2, 3, True, 3.0),
    (4, 0, 5, True, 5.0),
    (4, 1, 9, False, 9.0),
    (4, 2, 1, True, 2.0),
    (5, 0, 4, True, 0.0),
    (5, 1, 4, True, -1.0),
]
USABLE = [True] * 5 + [False, True, True]


def samples(rows: list[tuple[int, int, int, bool, float]] = ROWS) -> pa.Table:
    prompts, numbers, counts, finished, rewards = zip(*rows, strict=True)
    return pa.table(
        {
            "prompt_id": pa.array(prompts, pa.int32()),
            "sample": pa.array(numbers, pa.int32()),
            "response": pa.array([[1] * count for count in counts], pa.list_(pa.int32())),
            "finished": pa.array(finished, pa.bool_()),
            "reward": pa.array(rewards, pa.float32()),
        }
    )


def test_the_first_reason_against_an_answer_counts() -> None:
    rows = [(0, 0, 1, False, -9.0), (0, 1, 1, True, -9.0), (0, 2, 1, True, 0.49), (0, 3, 1, True, 0.5)]
    judged = verdicts(samples(rows), [False, False, True, True], min_reward=0.5)
    assert judged == ["truncated", "unusable", "below_min_reward", "passed"]
    assert verdicts(samples(rows), [True] * 4, min_reward=None) == ["truncated", "passed", "passed", "passed"]


@pytest.mark.parametrize("reward", [math.nan, math.inf])
def test_a_reward_that_is_no_number_names_its_sample(reward: float) -> None:
    with pytest.raises(RunError, match=r"sample 3 of prompt 12 has reward (nan|inf)"):
        verdicts(samples([(11, 0, 1, True, 0.0), (12, 3, 1, True, reward)]), [True, True], None)


def test_best_of_n_takes_the_lower_sample_of_equal_ones() -> None:
    assert best_of_n(samples(), range(8)) == [1, 4, 6]
    assert best_of_n(samples(), [0, 2, 3, 5, 7]) == [2, 3, 7]


def test_global_top_k_takes_one_of_a_prompt_unless_told_otherwise() -> None:
    passed = [0, 1, 2, 3, 5, 6, 7]
    assert global_top_k(samples(), passed, 2, one_per_prompt=True) == [1, 3]
    assert global_top_k(samples(), passed, 3, one_per_prompt=False) == [1, 2, 3]
    assert global_top_k(samples(), passed, 100, one_per_prompt=True) == [1, 3, 6]
    assert global_top_k(samples(), passed, 100, one_per_prompt=False) == passed


def test_equal_rewards_of_two_prompts_go_by_sample_number_then_row() -> None:
    table = samples([(0, 1, 1, True, 2.0), (1, 0, 1, True, 2.0), (2, 0, 1, True, 2.0)])
    assert global_top_k(table, range(3), 1, one_per_prompt=True) == [1]
    assert global_top_k(table, range(3), 2, one_per_prompt=True) == [1, 2]


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        ({}, [1, 3, 6]),
        ({"min_reward": 0.5}, [1, 3]),
        ({"by": "global_top_k", "k": 1}, [3]),
        ({"by": "global_top_k", "k": 3, "one_per_prompt": False}, [1, 2, 3]),
        ({"by": "global_top_k", "k": 3, "min_reward": 4}, [3]),
    ],
)
def test_settings_decide(settings: dict[str, Any], rows: list[int]) -> None:
    config = SelectionConfig.model_validate_json(json.dumps(settings))
    assert choose(samples(), verdicts(samples(), USABLE, config.min_reward), config) == rows


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"by": "global_top_k"}, "requires selection.k"),
        ({"k": 3}, "selection.k is only for selection.by global_top_k"),
        ({"one_per_prompt": False}, "is only for selection.by global_top_k"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SelectionConfig(**settings)


def test_the_report_counts_and_averages() -> None:
    judged = verdicts(samples(), USABLE, min_reward=0.5)
    found = report(samples(), judged, [1, 3])
    assert {name: found[name] for name in ("samples", "prompts", "passed", "prompts_passed", "chosen")} == {
        "samples": 8,
        "prompts": 3,
        "passed": 4,
        "prompts_passed": 2,
        "chosen": 2,
    }
    assert (found["truncated"], found["unusable"], found["below_min_reward"]) == (1, 1, 2)
    assert found["reward"] == pytest.approx(22 / 8)
    assert found["reward_std"] == pytest.approx(math.sqrt(130 / 8 - (22 / 8) ** 2))
    assert (found["chosen_reward"], found["chosen_reward_min"]) == (4.0, 3.0)
    assert (found["response_tokens"], found["chosen_response_tokens"]) == (4.0, 4.5)


def test_nothing_to_choose_says_why() -> None:
    judged = verdicts(samples(), USABLE, min_reward=10)
    with pytest.raises(
        RunError, match="none of 8 responses can be selected: 1 were truncated, 1 do not .* 6 are below"
    ):
        report(samples(), judged, [])


def test_an_answer_is_its_text_without_the_end_mark(tokenizer: Any) -> None:
    prompt: Any = [{"role": "user", "content": "头痛怎么办"}]

    def chat(text: str) -> Any:
        return chat_with(prompt, tokenizer.encode(text, add_special_tokens=False), tokenizer)

    assert chat("多休息。</s>") == [*prompt, {"role": "assistant", "content": "多休息。"}]
    assert chat("</s>") is None
    assert chat("多休息。[human]:还有呢</s>") is None
    assert chat("多休息。</s></s>") is None
    cut = tokenizer.encode("蕈", add_special_tokens=False)
    assert len(cut) == 3  # bytes
    assert chat_with(prompt, [*cut[:2], tokenizer.eos_token_id], tokenizer) is None
