from __future__ import annotations

import pytest

from evals.tasks.kl import kl_metrics


def test_by_hand() -> None:
    own = [[-9.0, -1.0, -0.5], [-9.0, -2.0]]
    other = [[-7.0, -1.5, -1.5], [-7.0, -1.0]]
    metrics = kl_metrics(own, other, counts=[2, 1])  # the prompts' tokens do not count
    assert metrics["per_sequence"] == pytest.approx((1.5 - 1.0) / 2)
    assert metrics["per_token"] == pytest.approx((1.5 - 1.0) / 3)
    assert metrics["standard_error"] == pytest.approx(1.25)  # sample deviation of 1.5 and -1 is 1.7678
    assert metrics["n"] == 2


def test_a_model_is_exactly_at_no_distance_from_itself() -> None:
    own = [[-0.1, -0.2, -0.7], [-0.3]]
    assert kl_metrics(own, own, [2, 1])["per_sequence"] == 0.0
