from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from cluster.waiting import RoleDied
from configs.errors import RunError
from trainers.rlhf import recovery
from trainers.rlhf.recovery import LearnersLost, Recovery, recoverable
from trainers.runs.stopping import StopRequests


class FakeRoles:
    """Loses whom an error names; remembers who was replaced."""

    def __init__(self) -> None:
        self.replaced: list[str] = []
        self.dies_meanwhile: list[RoleDied] = []
        self.one_world: set[str] = set()
        self.watch = SimpleNamespace(last_of=lambda role, ranks: [])

    def lost_ranks(self, error: RoleDied) -> dict[str, list[int]]:
        return {error.role: [0]}

    def to_restart(self, lost: dict[str, list[int]]) -> dict[str, list[int]]:
        return {**lost, **({role: [0] for role in sorted(self.one_world)} if lost.keys() & self.one_world else {})}

    def replace(self, ranks: dict[str, list[int]]) -> None:
        if self.dies_meanwhile:
            raise self.dies_meanwhile.pop()
        self.replaced += ranks


def failing(*roles: str) -> Callable[[bool], str]:
    """An action in which one role after another dies, and which then says whether it was repeated."""
    left = [RoleDied(f"{role}: learn: its process died") for role in roles]

    def action(again: bool) -> str:
        if left:
            raise left.pop(0)
        return "done again" if again else "done"

    return action


@pytest.fixture
def roles() -> FakeRoles:
    return FakeRoles()


@pytest.fixture
def recovering(roles: FakeRoles) -> Callable[..., Recovery]:
    return lambda most=3, window=600.0: Recovery(roles, StopRequests(), most, window)  # type: ignore[arg-type]


def test_a_stateless_role_is_replaced_and_the_action_repeated(roles: FakeRoles, recovering: Any) -> None:
    assert recovering().attempt(failing()) == "done"
    assert recovering().attempt(failing("reward", "rollout")) == "done again"
    assert roles.replaced == ["reward", "rollout"]


def test_a_recoverable_method_takes_its_argument_and_learns_of_a_repetition(roles: FakeRoles, recovering: Any) -> None:
    class Steps:
        recovery = recovering()
        seen: ClassVar[list[tuple[int, bool]]] = []

        @recoverable
        def generate(self, step: int, again: bool) -> str:
            self.seen.append((step, again))
            if not again:
                raise RoleDied("rollout: generate: its process died")
            return "responses"

    assert Steps().generate(3) == "responses"
    assert Steps.seen == [(3, False), (3, True)]
    assert roles.replaced == ["rollout"]


def test_a_lost_learner_is_replaced_and_the_run_goes_back(roles: FakeRoles, recovering: Any) -> None:
    with pytest.raises(LearnersLost):
        recovering().attempt(failing("critic"))
    recovery_, runs = recovering(), []

    def run() -> None:
        runs.append(1)
        if len(runs) == 1:
            raise RoleDied("policy: learn: its process died")
        if len(runs) == 2:
            recovery_.attempt(failing("policy"))

    recovery_.finish(run)
    assert len(runs) == 3
    assert roles.replaced == ["critic", "policy", "policy"]


def test_an_engine_that_takes_the_policy_with_it_is_a_lost_learner(roles: FakeRoles, recovering: Any) -> None:
    roles.one_world = {"policy", "rollout"}
    with pytest.raises(LearnersLost):
        recovering().attempt(failing("rollout"))
    assert roles.replaced == ["rollout", "policy"]
    assert recovering().attempt(failing("reward")) == "done again"


def test_who_dies_while_another_is_replaced_is_replaced_too(roles: FakeRoles, recovering: Any) -> None:
    roles.dies_meanwhile = [RoleDied("policy: load the model: its process died")]
    with pytest.raises(LearnersLost):
        recovering().attempt(failing("reward"))
    assert roles.replaced == ["policy"]


def test_too_many_losses_of_one_role_end_the_run_with_the_reason(
    recovering: Any, caplog: pytest.LogCaptureFixture
) -> None:
    recovery_ = recovering(2)
    recovery_.step = 6
    with pytest.raises(RunError) as end:
        recovery_.attempt(failing("reward", "rollout", "reward", "reward"))
    assert str(end.value) == (
        "step 7: reward (rank 0) was lost 3 times within 600 s or one step, more than max_failures 2; last error: reward: learn: "
        "its process died; it died before its first heartbeat; see its output with `ray logs`"
    )
    assert len(caplog.messages) == 3
    assert caplog.messages[2] == (
        "step 7: reward: learn: its process died; restarting reward (rank 0) (failure 2 of at most 2 in 600 s)"
    )


def test_losses_of_long_ago_count_within_one_step_only(recovering: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(recovery.time, "monotonic", lambda: now[0])
    recovery_ = recovering(1, 60.0)
    for step in range(5):
        recovery_.step, now[0] = step, 100.0 * step
        recovery_.attempt(failing("reward"))
    now[0] += 100.0
    with pytest.raises(RunError, match="step 5: reward .* was lost 2 times"):  # a step that no life lasts through
        recovery_.attempt(failing("reward"))
