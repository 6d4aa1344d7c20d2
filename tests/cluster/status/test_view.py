from __future__ import annotations

import pytest
from ray.core.generated import autoscaler_pb2, gcs_pb2

from cluster.liveness.registry import ProcessRecord, Progress
from cluster.status.view import Actor, node_names, node_view, run_view

NAMES = {"0a": "10.0.0.1", "0b": "10.0.0.2"}
NOW = 1000.0


def notice(role: str, rank: int = 0, *, actor: str = "", at: float = NOW - 2, **more: object) -> ProcessRecord:
    values = {"run": "a/ppo", "pid": 7, "node": "0a", "job": "01", "resident_bytes": 2**30, **more}
    return ProcessRecord(role=role, rank=rank, actor=actor, at=at, **values)  # type: ignore[arg-type]


def actor(number: int, name: str, state: int, restarts: int = 0) -> Actor:
    data = Actor(actor_id=bytes([number]), name=name, state=state, num_restarts=restarts, pid=70 + number)
    data.address.node_id = b"\x0b"
    return data


@pytest.fixture
def driver() -> ProcessRecord:
    metrics = {"reward": 1.5, "kl_to_reference": 0.25, "tokens_per_second": 900.0, "weights_version": 12.0}
    progress = Progress("ppo", step=12, steps=40, step_at=NOW - 30, figures=metrics)
    return notice("driver", progress=progress)


def test_a_run_with_every_kind_of_process(driver: ProcessRecord):
    notices = [
        driver,
        notice("rollout", 0, actor="01", weights_version=12),
        notice("rollout", 1, actor="02", weights_version=11, at=NOW - 31),
        notice("policy", 0, actor="03", restarts=1),
        notice("reward", 0, actor="04", node="0c"),
        notice("critic", 0, actor="09"),
    ]
    actors = [
        actor(1, "a/ppo/rollout-0", Actor.ALIVE, restarts=2),
        actor(2, "a/ppo/rollout-1", Actor.ALIVE),
        actor(3, "a/ppo/policy-0", Actor.RESTARTING),
        actor(4, "a/ppo/reward-0", Actor.DEAD),
        actor(5, "a/ppo/reference-10", Actor.PENDING_CREATION),
        actor(6, "a/ppo", Actor.ALIVE),
        actor(7, "another/ppo/policy-0", Actor.ALIVE),
        actor(8, "", Actor.ALIVE),
    ]
    run = run_view(driver, notices, actors, True, NAMES, {}, NOW)
    assert (run.name, run.stage, run.state, run.step, run.steps, run.step_s) == ("a/ppo", "ppo", "running", 12, 40, 30)
    assert (run.tokens_per_second, run.reward, run.kl_to_reference, run.loss) == (900.0, 1.5, 0.25, None)
    assert run.weights_version == 12
    seen = [(r.role, r.rank, r.state, r.node, r.restarts, r.beat_s, r.weights_version) for r in run.ranks]
    assert seen == [
        ("driver", 0, "alive", "10.0.0.1", 0, 2, None),
        ("critic", 0, "gone", "10.0.0.1", 0, 2, None),
        ("policy", 0, "restarting", "10.0.0.1", 1, 2, None),
        ("reference", 10, "pending creation", "10.0.0.2", 0, None, None),
        ("reward", 0, "dead", "a removed node", 0, 2, None),
        ("rollout", 0, "alive", "10.0.0.1", 2, 2, 12),
        ("rollout", 1, "late", "10.0.0.1", 0, 31, 11),
    ]


def test_a_driver_that_was_killed_ended_without_a_word(driver: ProcessRecord):
    run = run_view(driver, [driver, notice("policy", actor="03")], [], False, NAMES, {}, NOW)
    assert (run.state, run.step, run.ranks) == ("ended without a report", 12, ())


def test_a_driver_that_failed_says_why(driver: ProcessRecord):
    assert driver.progress is not None
    driver.progress.state = "failed: RoleError: policy: learn: its process died"
    for alive in (True, False):
        run = run_view(driver, [driver], [], alive, NAMES, {}, NOW)
        assert run.state == "failed: RoleError: policy: learn: its process died"


def test_nodes_that_share_an_address_are_told_apart_and_the_dead_do_not_count():
    reply = autoscaler_pb2.GetClusterStatusReply()
    nodes = reply.cluster_resource_state.node_states
    for end, address, status in ((b"\x01", "1.1.1.1", 1), (b"\x02", "1.1.1.1", 3), (b"\x03", "2.2.2.2", 1)):
        nodes.add(node_id=b"\xaa\xbb\xcc" + end, node_ip_address=address, status=status)
    nodes.add(node_id=b"\xaa\xbb\xcc\x04", node_ip_address="2.2.2.2", status=autoscaler_pb2.DEAD)
    assert list(node_names(reply).values()) == ["1.1.1.1/bcc01", "1.1.1.1/bcc02", "2.2.2.2", "2.2.2.2"]


def test_a_node_shows_what_is_used_and_no_markers():
    node = autoscaler_pb2.NodeState(node_id=b"\x0a", ray_node_type_name="trainer", status=autoscaler_pb2.RUNNING)
    node.total_resources.update({"CPU": 8, "GPU": 2, "node:10.0.0.1": 1, "CPU_group_0_ab": 4, "bundle_group_ab": 1000})
    node.available_resources.update({"CPU": 3.9})
    view = node_view(node, NAMES)
    assert (view.node, view.kind, view.state) == ("10.0.0.1", "trainer", "running")
    assert view.total == {"CPU": 8, "GPU": 2}
    assert view.used == {"CPU": 4.1, "GPU": 2}


def test_ray_still_calls_the_states_so():
    assert Actor.ActorState.Name(Actor.ALIVE) == "ALIVE"
    assert {"PENDING", "RESCHEDULING"} <= set(gcs_pb2.PlacementGroupTableData.PlacementGroupState.keys())


def test_processes_that_share_a_bundle_say_the_same_one(driver: ProcessRecord):
    def placed(number: int, name: str, group: bytes, bundle: int) -> Actor:
        made = actor(number, name, Actor.ALIVE)
        made.placement_group_id = group
        for resource in (f"CPU_group_{bundle}_", "CPU_group_", f"bundle_group_{bundle}_", "bundle_group_"):
            made.required_resources[resource + group.hex()] = 0.5
        return made

    actors = [
        placed(1, "a/ppo/policy-0", b"\xa1", 0),
        placed(2, "a/ppo/policy-1", b"\xa1", 1),
        placed(3, "a/ppo/critic-0", b"\xa1", 0),
        placed(4, "a/ppo/rollout-0", b"\xa2", 0),
        placed(5, "a/ppo/reward-0", b"\xa3", 0),
        actor(6, "a/ppo/reference-0", Actor.PENDING_CREATION),
    ]
    notices = [driver, notice("policy", 1, actor="02"), notice("reward", 1, actor="09")]
    names = {b"\xa1": "a/ppo/policy+critic", b"\xa2": "a/ppo/rollout", b"\xa3": ""}
    run = run_view(driver, notices, actors, True, NAMES, names, NOW)
    assert [(rank.role, rank.rank, rank.bundle) for rank in run.ranks] == [
        ("driver", 0, None),
        ("critic", 0, "policy+critic 0"),
        ("policy", 0, "policy+critic 0"),
        ("policy", 1, "policy+critic 1"),
        ("reference", 0, None),
        ("reward", 0, None),
        ("reward", 1, None),
        ("rollout", 0, "rollout 0"),
    ]
