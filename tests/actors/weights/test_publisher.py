"""What a publish may differ by, with engines and a policy that say what they are told to."""

from __future__ import annotations

from typing import Any

import pytest

from actors.config import PublishConfig
from actors.weights.publisher import Publisher, PublishError


class Groups:
    """Stands for both groups of actors: the policy answers 0 for each token, the engine what `drift` says."""

    drift = 0.0

    def submit(self, *_: Any) -> None:
        return None

    def wait(self, *_: Any) -> list[list[list[float]]]:
        return [[[0.0, 0.0]]]

    def call(self, *_: Any) -> list[tuple[int, list[list[float]]]]:
        return [(1, [[0.0, self.drift]])]


def publisher(groups: Groups, dtype: str = "float32", **settings: Any) -> Publisher:
    anything: Any = groups
    return Publisher(PublishConfig(**settings), anything, anything, [[1, 2, 3]], dtype)


def drifts(checks: Publisher, groups: Groups, drift: float) -> bool:
    """Whether a publish with this drift is accepted."""
    groups.drift = drift
    try:
        return checks.check(1) == drift
    except PublishError:
        return False


@pytest.mark.parametrize(
    ("dtype", "first", "allowed", "refused"),
    [
        ("float32", 0.0, 9e-5, 1.1e-4),
        ("float32", 6e-5, 2.3e-4, 2.5e-4),
        ("bfloat16", 0.001, 0.049, 0.051),
        ("bfloat16", 0.09, 0.35, 0.37),
    ],
)
def test_later_publishes_may_differ_by_what_the_first_one_rounds(
    dtype: str, first: float, allowed: float, refused: float
) -> None:
    groups = Groups()
    checks = publisher(groups, dtype)
    assert drifts(checks, groups, first)
    assert drifts(checks, groups, allowed)
    assert not drifts(checks, groups, refused)


@pytest.mark.parametrize(("dtype", "largest"), [("float32", 2e-3), ("bfloat16", 0.5)])
def test_the_first_publish_has_a_limit_of_its_own(dtype: str, largest: float) -> None:
    groups = Groups()
    assert not drifts(publisher(groups, dtype), groups, 1.01 * largest)
    assert drifts(publisher(groups, dtype), groups, largest)


def test_a_tolerance_that_is_set_holds_from_the_first_publish() -> None:
    groups = Groups()
    checks = publisher(groups, tolerance=0.01)
    assert drifts(checks, groups, 0.01)
    groups.drift = 0.011
    with pytest.raises(
        PublishError, match=r"rollout-0 does not compute with .* up to 0.011 on the probe, 0.01 is allowed"
    ):
        checks.check(1)
