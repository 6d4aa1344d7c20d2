"""What a publish may differ by, with engines and a policy that say what they are told to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from actors.config import PublishConfig
from actors.groups import group
from actors.weight_sync.publisher import Publisher, PublishError


class Groups:
    """Stands for both groups of actors: the policy answers 0 for each token, the engine what `drift` says."""

    drift = 0.0
    held = 7  # bits of an engine's weights; the policy sent 7

    def __init__(self) -> None:
        self.limits: list[float] = []

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        self.limits.append(seconds)
        yield
        self.limits.append(0.0)

    def submit(self, *_: Any) -> None:
        return None

    def wait(self, *_: Any) -> list[list[list[float]]]:
        return [[[0.0, 0.0]]]

    def call(self, method: str, *_: Any) -> list[Any]:
        return {"sent_bits": [7, None], "held_bits": [7, self.held], "probe": [(1, [[0.0, self.drift]])]}[method]


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


def test_sending_and_checking_end_within_the_limit() -> None:
    groups = Groups()
    checks = publisher(groups, timeout_s=7.0)
    checks.transport = SimpleNamespace(send=lambda version: groups.limits.append(version))  # type: ignore[assignment]
    assert checks.publish(1).drift == 0.0
    assert groups.limits == [7.0, 7.0, 1, 0.0, 0.0]


@pytest.mark.parametrize("held", [8, None])
def test_an_engine_with_other_bits_is_refused_even_if_the_probe_agrees(held: Any) -> None:
    groups = Groups()
    groups.held = held
    checks = publisher(groups)
    checks.transport = SimpleNamespace(send=lambda version: None)  # type: ignore[assignment]
    with pytest.raises(PublishError, match=f"rollout-1 does not hold weights version 3: .* add up to {held}, .* to 7"):
        checks.publish(3)


def test_waits_within_a_limit_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now, waits = [0.0], []

    def get(refs: object, what: str, timeout_s: float, look: object) -> None:
        waits.append((what, timeout_s))
        now[0] += 70.0

    monkeypatch.setattr(group.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(group, "get", get)
    policy: Any = object.__new__(group.WorkerGroup)
    policy.role, policy.timeout_s, policy._until = "policy", 600.0, None
    with policy.within(120.0):
        for doing in ("gather", "send", "probe"):
            policy.wait([], doing)
    policy.wait([], "learn")
    assert waits == [
        ("policy: gather", 120.0),
        ("policy: send", 50.0),
        ("policy: probe", 0.0),
        ("policy: learn", 600.0),
    ]
