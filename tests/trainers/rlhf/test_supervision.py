from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.waiting import RoleDied
from configs.errors import RunError
from trainers.rlhf import supervision
from trainers.rlhf.supervision import LearnersLost, Supervisor
from trainers.runs.stopping import StopRequests


class FakeTeam:
    """Loses whom an error names; remembers who was replaced."""

    def __init__(self) -> None:
        self.replaced: list[str] = []
        self.dies_meanwhile: list[RoleDied] = []
        self.one_world: set[str] = set()
        self.watch = SimpleNamespace(last_of=lambda role, ranks: [])

    def lost(self, error: RoleDied) -> dict[str, list[int]]:
        return {error.role: [0]}

    def together(self, lost: dict[str, list[int]]) -> dict[str, list[int]]:
        return {**lost, **({role: [0] for role in sorted(self.one_world)} if lost.keys() & self.one_world else {})}

    def replace(self, ranks: dict[str, list[int]]) -> None:
        if self.dies_meanwhile:
            raise self.dies_meanwhile.pop()
        self.replaced += ranks


def failing(*roles: str) -> Callable[[], str]:
    """Work in which one role after another dies, and which then succeeds."""
    left = [RoleDied(f"{role}: learn: its process died") for role in roles]

    def work() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return work


@pytest.fixture
def team() -> FakeTeam:
    return FakeTeam()


@pytest.fixture
def supervised(team: FakeTeam) -> Callable[..., Supervisor]:
    return lambda most=3, window=600.0: Supervisor(team, StopRequests(), most, window)  # type: ignore[arg-type]


def test_a_role_that_keeps_nothing_is_replaced_and_the_work_done_again(team: FakeTeam, supervised: Any) -> None:
    assert supervised().keep_at(failing("reward", "rollout")) == "done"
    assert team.replaced == ["reward", "rollout"]


def test_what_is_done_again_may_be_other_work(team: FakeTeam, supervised: Any) -> None:
    assert supervised().keep_at(failing("rollout"), lambda: "asked again") == "asked again"
    assert supervised().keep_at(failing("rollout"), failing("reward")) == "done"
    assert team.replaced == ["rollout", "rollout", "reward"]


def test_a_lost_learner_is_replaced_and_the_run_goes_back(team: FakeTeam, supervised: Any) -> None:
    with pytest.raises(LearnersLost):
        supervised().keep_at(failing("critic"))
    supervisor, runs = supervised(), []

    def run() -> None:
        runs.append(1)
        if len(runs) == 1:
            raise RoleDied("policy: learn: its process died")
        if len(runs) == 2:
            supervisor.keep_at(failing("policy"))

    supervisor.finish(run)
    assert len(runs) == 3
    assert team.replaced == ["critic", "policy", "policy"]


def test_an_engine_that_takes_the_policy_with_it_is_a_lost_learner(team: FakeTeam, supervised: Any) -> None:
    team.one_world = {"policy", "rollout"}
    with pytest.raises(LearnersLost):
        supervised().keep_at(failing("rollout"))
    assert team.replaced == ["rollout", "policy"]
    assert supervised().keep_at(failing("reward")) == "done"


def test_who_dies_while_another_is_replaced_is_replaced_too(team: FakeTeam, supervised: Any) -> None:
    team.dies_meanwhile = [RoleDied("policy: load the model: its process died")]
    with pytest.raises(LearnersLost):
        supervised().keep_at(failing("reward"))
    assert team.replaced == ["policy"]


def test_too_many_losses_of_one_role_end_the_run_with_the_reason(
    supervised: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor = supervised(2)
    supervisor.step = 6
    with pytest.raises(RunError) as end:
        supervisor.keep_at(failing("reward", "rollout", "reward", "reward"))
    assert str(end.value) == (
        "step 7: reward (rank 0) was lost 3 times within 600 s or one step, max_failures is 2; at last: reward: learn: "
        "its process died; it died before it gave a sign of life; `ray logs` has its output"
    )
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3
    assert said[2] == (
        "ppo: step 7: reward: learn: its process died; reward (rank 0) starts again (failure 2 of at most 2 in 600 s)"
    )


def test_losses_of_long_ago_count_within_one_step_only(supervised: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(supervision.time, "monotonic", lambda: now[0])
    supervisor = supervised(1, 60.0)
    for step in range(5):
        supervisor.step, now[0] = step, 100.0 * step
        supervisor.keep_at(failing("reward"))
    now[0] += 100.0
    with pytest.raises(RunError, match="step 5: reward .* was lost 2 times"):  # a step that no life lasts through
        supervisor.keep_at(failing("reward"))
