"""Which ranks are restarted together when some are lost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from actors.groups.learners import Learners
from actors.groups.role_groups import RoleGroups, RoleGroupsConfig
from actors.roles.worker import RunContext


def roles(native_transfer: str | None) -> RoleGroups:
    """Two ranks a role, of which no process exists."""
    made = object.__new__(RoleGroups)
    context = RunContext({}, "model", 0, (), native_transfer=native_transfer)
    made.config = RoleGroupsConfig("t", context, (), start_timeout_s=1.0, call_timeout_s=1.0)
    names: Any = ("policy", "critic", "reference", "reward", "rollout")
    made.groups = {role: SimpleNamespace(ranks=2) for role in names}  # type: ignore[misc]
    return made


@pytest.mark.parametrize(
    ("native_transfer", "lost", "started"),
    [
        (None, {"rollout": [1]}, {"rollout": [1]}),
        (None, {"policy": [1]}, {"policy": [0, 1]}),
        (None, {"critic": [0], "reward": [1]}, {"critic": [0, 1], "reward": [1]}),
        ("nccl", {"rollout": [1]}, {"policy": [0, 1], "rollout": [0, 1]}),
        ("nccl", {"policy": [0]}, {"policy": [0, 1], "rollout": [0, 1]}),
        ("nccl", {"critic": [0]}, {"critic": [0, 1], "policy": [0, 1], "rollout": [0, 1]}),
        ("nccl", {"reference": [0], "reward": [1]}, {"reference": [0], "reward": [1]}),
    ],
)
def test_ranks_of_one_world_start_together(
    native_transfer: str | None, lost: dict[str, list[int]], started: dict[str, list[int]]
) -> None:
    assert roles(native_transfer).to_restart(lost) == started


def test_a_reset_restarts_the_learners_whose_weights_have_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    found, replaced = roles(None), list[object]()
    found.updated = set()
    monkeypatch.setattr(found, "replace", replaced.append)
    learners = Learners(found, minibatches=1, skips_policy=False)
    learners.reset()
    assert replaced == []
    found.updated = {"policy"}
    learners.reset()
    assert replaced == [{"policy": [0, 1]}]
