from __future__ import annotations

import pickle

import pyarrow as pa
import pytest

from actors.zero.diverged import DivergedError, NotFiniteError, not_finite_columns

SOUND = {"prompt": [[1, 2], [3]], "reward": [0.5, -1.0], "logprobs": [[-1.0], [-2.0, -3.0]]}


def test_columns_that_are_not_finite_are_found_in_numbers_and_in_lists() -> None:
    assert not_finite_columns(pa.table(SOUND)) == []
    broken = {"reward": [0.5, float("nan")], "advantages": [[0.0], [1.0, float("-inf")]]}
    assert not_finite_columns(pa.table({**SOUND, **broken})) == ["reward", "advantages"]


@pytest.mark.parametrize(
    ("broken", "advice"),
    [
        ({}, "its rows are finite: lower its optimizer.lr or optimizer.max_grad_norm, under another run name"),
        ({"reward": [0.5, float("nan")]}, "reward of its rows is not finite: check what computed them"),
    ],
)
def test_the_line_says_whose_what_and_what_to_do(broken: dict[str, list[float]], advice: str) -> None:
    rows = pa.table({**SOUND, **broken})
    error = DivergedError("critic", str(NotFiniteError("the loss is nan", 3, [[0]])), rows)
    assert str(error) == f"critic: the loss is nan at optimizer step 3; {advice}; checkpoints are kept"


def test_both_survive_the_way_to_another_process() -> None:
    error = NotFiniteError("the loss is nan", 3, [[0], [1, 2]])
    error.update = 5
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.micro_batches, copy.update) == (str(error), [[0], [1, 2]], 5)
    diverged = pickle.loads(pickle.dumps(DivergedError("sft", "the loss is nan", pa.table(SOUND))))
    assert diverged.rows.to_pydict() == SOUND
