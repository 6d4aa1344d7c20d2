from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from data.mixing import Order
from data.tables import DataError


def drawn(order: Order, epochs: int) -> list[int]:
    return [row for step in range(epochs * order.rows) for row in order.of_step(step, 1)]


def test_each_epoch_takes_every_row_once_in_another_order() -> None:
    order = Order((20,), seed=0)
    taken = [row for step in range(10) for row in order.of_step(step, 4)]
    first, second = taken[:20], taken[20:]
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second


def test_a_step_that_meets_the_end_of_an_epoch_goes_on_with_the_next() -> None:
    order = Order((7,), seed=5)
    stream = drawn(order, 2)
    assert order.of_step(1, 5) == stream[5:10]
    assert order.of_step(0, 14) == stream


def test_several_sources_without_weights_are_one() -> None:
    assert drawn(Order((4, 3), seed=5), 2) == drawn(Order((7,), seed=5), 2)


def test_weights_are_shares_of_every_epoch_whatever_the_sizes() -> None:
    order = Order((30, 10, 60), seed=3, weights=(1.0, 2.0, 1.0))
    assert order.shares == (25, 50, 25)
    assert order.passes == (25 / 30, 5.0, 25 / 60)
    for epoch in range(3):
        rows = drawn(order, 3)[epoch * 100 : (epoch + 1) * 100]
        assert np.histogram(rows, [0, 30, 40, 100])[0].tolist() == [25, 50, 25]


def test_a_source_goes_on_where_it_stopped_and_no_row_comes_twice_before_all_have_come() -> None:
    order = Order((30, 10), seed=1, weights=(1.0, 1.0))
    first = Counter(row for row in drawn(order, 3) if row < 30)  # 60 draws: two passes
    assert first == dict.fromkeys(range(30), 2)
    second = Counter(row for row in drawn(order, 1) if row >= 30)  # 20 draws: two passes
    assert second == dict.fromkeys(range(30, 40), 2)


def test_any_step_can_be_asked_for_first() -> None:
    stream = drawn(Order((13, 8), seed=2, weights=(1.0, 3.0)), 3)
    assert [Order((13, 8), 2, (1.0, 3.0)).of_step(step, 5) for step in (9, 2)] == [stream[45:50], stream[10:15]]
    assert stream != drawn(Order((13, 8), 3, (1.0, 3.0)), 3)


def test_rounding_loses_no_row_and_a_source_that_would_never_come_is_refused() -> None:
    assert Order((3, 3, 4), seed=0, weights=(1.0, 1.0, 1.0)).shares == (4, 3, 3)
    with pytest.raises(DataError, match=r"data.weights: 0.001 for entry 1 of data.train gives it none of the 20 rows"):
        _ = Order((10, 10), seed=0, weights=(1.0, 0.001)).shares
