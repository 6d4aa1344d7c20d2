from __future__ import annotations

import random

import pytest

from actors.groups.batching import (
    balanced_plan,
    even_shares,
    forward_rows,
    frozen_plan,
    minibatch_plans,
    row_chunks,
    rows_at,
    rows_of,
)


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_every_row_once_equal_counts_and_within_the_budget(ranks: int, seed: int) -> None:
    lengths = [random.Random(seed * 97 + i).randint(5, 200) for i in range(40)]
    plan = balanced_plan(lengths, ranks, max_tokens=400)
    assert sorted(row for rank in plan for row in rows_of(rank)) == list(range(40))
    assert len({len(rank) for rank in plan}) == 1
    assert max(sum(lengths[row] for row in micro) for rank in plan for micro in rank) <= 400
    loads = [sum(lengths[row] for row in rows_of(rank)) for rank in plan]
    assert max(loads) - min(loads) <= 200


def test_a_row_longer_than_the_budget_stands_alone() -> None:
    (micro_batches,) = balanced_plan([10, 500, 10], 1, max_tokens=100)
    assert [1] in micro_batches


def test_fewer_rows_than_ranks_is_refused() -> None:
    with pytest.raises(ValueError, match="1 rows cannot be shared by 2 ranks"):
        balanced_plan([3], 2, 100)


def test_minibatches_are_consecutive_rows_and_the_forward_pass_keeps_their_cut() -> None:
    plans = minibatch_plans([10] * 12, minibatches=3, ranks=2, max_tokens=20)
    assert [sorted(row for rank in plan for row in rows_of(rank)) for plan in plans] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
    ]
    forward = forward_rows(plans)
    assert sorted(row for rank in forward for row in rows_of(rank)) == list(range(12))
    assert forward[0] == [micro for plan in plans for micro in plan[0]]


@pytest.mark.parametrize(("rows", "minibatches"), [(1, 2), (3, 4), (5, 2), (0, 1)])
def test_rows_that_do_not_fill_the_minibatches_are_refused_not_dropped(rows: int, minibatches: int) -> None:
    said = f"^{rows} rows cannot be divided into {minibatches} minibatches of equal size$"
    with pytest.raises(ValueError, match=said):
        minibatch_plans([10] * rows, minibatches, ranks=1, max_tokens=20)
    with pytest.raises(ValueError, match=said):
        row_chunks(rows, minibatches, 1)


def test_even_shares_are_neighbors_and_some_are_empty_when_rows_are_few() -> None:
    assert even_shares(5, 2) == [[0, 1], [2, 3, 4]]
    assert even_shares(2, 3) == [[], [0], [1]]


def test_chunks_are_neighboring_rows_of_one_minibatch() -> None:
    assert row_chunks(8, 1, None) == [[0, 1, 2, 3, 4, 5, 6, 7]]
    assert row_chunks(8, 2, None) == row_chunks(8, 2, 4) == row_chunks(8, 2, 99) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert row_chunks(10, 1, 3) == [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]]
    assert row_chunks(12, 2, 2) == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]


def test_frozen_ranks_without_rows_get_none_and_a_minibatch_is_cut_as_for_learning() -> None:
    assert frozen_plan([5], 3, 100) == [[[0]], [], []]
    lengths = [random.Random(i).randint(5, 200) for i in range(20)]
    assert [frozen_plan(lengths, 2, 300)] == minibatch_plans(lengths, 1, 2, 300)


def test_rows_at_are_those_of_the_named_micro_batches_of_each_rank() -> None:
    plan = [[[3], [0, 5]], [[4], [1, 2]]]
    assert rows_at(plan, [[1], [0]]) == [0, 4, 5]
    assert rows_at(plan, [[], []]) == []
