from __future__ import annotations

import os
import time

import pytest
import ray

from cluster.waiting import RoleDied, RoleError, get

pytestmark = pytest.mark.slow


@ray.remote(num_cpus=0.1)
class Role:
    def answer(self, seconds: float) -> int:
        time.sleep(seconds)
        return 7

    def die(self) -> None:
        os._exit(3)

    def fail(self) -> None:
        raise FloatingPointError("the loss is nan")


def test_a_late_answer_a_dead_process_and_an_error_are_told_apart(ray_cluster: None) -> None:
    role = Role.remote()
    assert get([role.answer.remote(0)], "policy: learn", 30.0) == [7]
    with pytest.raises(RoleError, match="policy: learn: no response after 1 s"):
        get(role.answer.remote(30), "policy: learn", 1.0)
    other = Role.remote()
    with pytest.raises(FloatingPointError, match="the loss is nan"):
        get(other.fail.remote(), "critic: learn", 30.0)
    with pytest.raises(RoleError, match="critic: learn: its process died"):
        get(other.die.remote(), "critic: learn", 30.0)
    ray.kill(role)


def test_an_error_that_a_partners_death_caused_is_that_death(ray_cluster: None) -> None:
    failing, dying = Role.remote(), Role.remote()
    dying.answer.remote(1)  # it dies after the other one has failed
    with pytest.raises(RoleDied, match="policy: learn: its process died"):
        get([failing.fail.remote(), dying.die.remote()], "policy: learn", 30.0)
    assert get([failing.answer.remote(0)], "policy: learn", 30.0) == [7]
