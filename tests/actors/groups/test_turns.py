"""The order in which roles that share GPUs hold their memory, with stand-ins for their processes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.device_memory import ORDER, Resident
from actors.groups.turns import Turns
from actors.roles.policy import Policy
from actors.roles.reference import Reference
from actors.roles.rollout import Rollout
from cluster.waiting import RoleDied

ROLES = ("critic", "policy", "reference", "rollout")


class Recorded:
    """Stands for a role's processes: notes what they are asked to hold, and what they hold once that is waited for."""

    def __init__(self, role: str, log: list[str], held: dict[str, str]) -> None:
        self.role, self.log, self.held, self.dies = role, log, held, False

    def submit(self, method: str, *arguments: Any) -> list[Any]:
        assert method == "hold"
        self.log.append(f"{self.role} {arguments[0]}")
        return [arguments[0]]

    def wait(self, refs: list[Any], doing: str) -> list[Any]:
        if self.dies:
            raise RoleDied(f"{self.role}: {doing}: its process died")
        (self.held[self.role],) = refs
        return refs


def turns(*sharing: tuple[str, ...]) -> tuple[Turns, dict[str, Recorded], list[str], dict[str, str]]:
    log: list[str] = []
    held = dict.fromkeys(ROLES, "nothing")
    groups = {role: Recorded(role, log, held) for role in ROLES}
    return Turns(groups, sharing), groups, log, held


def test_a_step_of_rlhf() -> None:
    """The calls of a step, in the order in which the loop makes them, and what they make the roles do."""
    turn, _, log, _ = turns(ROLES)

    def after(role: str, resident: Resident) -> list[str]:
        turn.need(role, resident)
        done = log.copy()
        log.clear()
        return done

    turn.take({"policy": "weights", "rollout": "weights"})  # publish
    assert log == ["policy weights", "rollout weights"]
    log.clear()
    assert after("policy", "weights") == []  # its probe
    assert after("rollout", "all") == ["policy nothing", "rollout all"]  # the engines' probe
    assert after("rollout", "all") == []  # generate
    assert after("policy", "weights") == ["rollout nothing", "policy weights"]  # score
    assert after("critic", "weights") == ["policy nothing", "critic weights"]
    assert after("reference", "weights") == ["critic nothing", "reference weights"]
    assert after("policy", "all") == ["reference nothing", "policy all"]  # update
    assert after("critic", "all") == ["policy nothing", "critic all"]
    turn.take({"policy": "weights", "rollout": "weights"})  # publish
    assert log == ["critic nothing", "policy weights", "rollout weights"]


def test_memory_is_freed_before_other_memory_is_restored() -> None:
    turn, _, log, _ = turns(ROLES)
    turn.need("policy", "all")
    log.clear()
    turn.take({"rollout": "weights", "policy": "weights"})
    assert log == ["policy weights", "rollout weights"]


def test_roles_that_share_nothing_are_left_alone() -> None:
    turn, _, log, _ = turns(("policy", "critic"))
    turn.take({"policy": "weights", "rollout": "weights"})
    turn.need("rollout", "all")
    turn.need("reference", "all")
    assert log == ["policy weights"]
    no_sharing, _, log, _ = turns()
    no_sharing.take({"policy": "weights", "rollout": "weights"})
    no_sharing.need("critic", "all")
    assert log == []


def test_after_a_failure_nothing_is_taken_for_granted() -> None:
    turn, groups, log, _ = turns(ROLES)
    turn.need("rollout", "all")
    groups["rollout"].dies = True
    with pytest.raises(RoleDied, match="rollout: free GPU memory: its process died"):
        turn.need("policy", "weights")
    groups["rollout"].dies = False
    turn.replaced("rollout")
    log.clear()
    turn.need("rollout", "nothing")
    assert log == []
    turn.need("rollout", "all")  # as it loads its model
    turn.need("policy", "weights")
    assert log == ["rollout all", "rollout nothing", "policy weights"]


@given(
    st.sampled_from([(ROLES,), (("policy", "critic"), ("reference", "rollout")), (("policy", "critic"),)]),
    st.lists(st.tuples(st.sampled_from(ROLES), st.sampled_from(ORDER), st.booleans()), max_size=30),
)
def test_only_roles_that_were_named_together_hold_memory(
    sharing: tuple[tuple[str, ...], ...], calls: list[tuple[str, Resident, bool]]
) -> None:
    turn, _, _, held = turns(*sharing)
    for role, resident, publishes in calls:
        if publishes:
            turn.take({"policy": "weights", "rollout": "weights"})
        else:
            turn.need(role, resident)
        for roles in sharing:
            holders = {each for each in roles if held[each] != "nothing"}
            assert len(holders) <= 1 or holders == {"policy", "rollout"}
            if role in roles and not publishes:
                assert ORDER.index(held[role]) >= ORDER.index(resident)  # type: ignore[arg-type]


def test_what_the_methods_of_roles_need() -> None:
    assert Policy.update.__dict__.get("needs", "all") == "all"
    assert {Policy.probe.needs, Policy.add_columns.needs, Reference.add_columns.needs} == {"weights"}  # type: ignore[attr-defined]
    assert {Rollout.begin_weight_load.needs, Policy.weight_blocks.needs} == {"weights"}  # type: ignore[attr-defined]
    assert {Policy.saved.needs, Policy.hold.needs, Rollout.held_bits.needs} == {"nothing"}  # type: ignore[attr-defined]
