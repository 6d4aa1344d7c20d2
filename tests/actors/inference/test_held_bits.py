"""The sum of a whole model's bits, from what the processes of an engine hold."""

from __future__ import annotations

import pytest

from actors.inference.held_bits import Held, whole


def test_what_is_divided_adds_up_and_what_all_hold_alike_counts_once() -> None:
    first = Held(divided=10, others={"norm.weight": 5, "attention.sinks": 1}, missing=[])
    second = Held(divided=2**64 - 7, others={"norm.weight": 5, "attention.sinks": 2}, missing=[])
    assert whole([first]) == 16
    assert whole([first, second]) == 10 - 7 + 5 + 3


def test_a_layer_that_any_process_lacks_is_named() -> None:
    held = [Held(1, {}, []), Held(1, {}, ["model.layers.1.mlp", "lm_head"])]
    with pytest.raises(RuntimeError, match="incomplete: 2 layers lack some, such as lm_head"):
        whole(held)
