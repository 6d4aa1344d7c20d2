from __future__ import annotations

import pytest
from ray.core.generated import autoscaler_pb2

from cluster.scaling import autoscaled, text_of, waiting_for

GPUS = [{"CPU": 1.0, "GPU": 1.0}] * 8
GROUP = "0a" * 18


def reply(cpus: float, gpus: float, free: float, instance: str = "") -> autoscaler_pb2.GetClusterStatusReply:
    """A cluster of one node that lives, and one that is dead and must not count."""
    answer = autoscaler_pb2.GetClusterStatusReply()
    for status, node_id in ((autoscaler_pb2.RUNNING, b"a"), (autoscaler_pb2.DEAD, b"b")):
        node = answer.cluster_resource_state.node_states.add(node_id=node_id, status=status, instance_id=instance)
        node.total_resources.update({"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus})
        node.available_resources.update({"CPU": free})
    return answer


def test_bundles_in_words():
    assert text_of(GPUS) == "8 x (1 CPU, 1 GPU)"
    assert text_of([{"CPU": 0.5}, {"CPU": 2.0, "GPU": 0.0}, {"CPU": 0.5}]) == "2 x (0.5 CPU) + 2 CPU"
    assert text_of([{"CPU": 0.0}]) == "nothing"


def test_without_an_autoscaler_the_cluster_is_all_there_is():
    answer = reply(16, 4, 3)
    assert not autoscaled(answer)
    assert waiting_for("job/policy", GPUS, answer) == (
        "job/policy needs 8 x (1 CPU, 1 GPU); no autoscaler here: the cluster has 16 CPU (3 free), 4 GPU (0 free)"
    )
    assert waiting_for("sft", [{"CPU": 4.0, "TPU": 1.0}], answer).endswith("the cluster has 16 CPU (3 free), 0 TPU")


def test_nodes_that_are_coming_are_counted_whether_asked_for_or_started():
    answer = reply(0, 0, 0, instance="head-pod")
    answer.autoscaling_state.autoscaler_state_version = 7
    answer.autoscaling_state.pending_instance_requests.add(ray_node_type_name="trainer", count=2)
    answer.autoscaling_state.pending_instances.add(ray_node_type_name="rollout")
    assert autoscaled(answer)
    assert waiting_for("job/policy", GPUS, answer, GROUP) == (
        "job/policy needs 8 x (1 CPU, 1 GPU); the autoscaler is adding 3 nodes (1 rollout, 2 trainer); "
        "the cluster has 0 CPU, 0 GPU"
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: None, "the autoscaler has not reported yet"),
        (lambda state: setattr(state, "autoscaler_state_version", 1), "the autoscaler has not decided yet"),
        (
            lambda state: state.infeasible_gang_resource_requests.add(details=f"{GROUP}:PACK|PENDING"),
            "the autoscaler has no nodes left to add for it",
        ),
        (
            lambda state: state.failed_instance_requests.add(ray_node_type_name="trainer", count=1, reason="no quota"),
            "the autoscaler could not add 1 trainer: no quota",
        ),
        (
            lambda state: state.pending_instances.add(ray_node_type_name="trainer"),
            "the autoscaler is adding 1 node (1 trainer)",
        ),
    ],
)
def test_what_an_autoscaler_does(change, says):
    answer = reply(2, 0, 2, instance="head-pod")
    change(answer.autoscaling_state)
    assert waiting_for("job/policy", [{"GPU": 1.0}], answer, GROUP) == (
        f"job/policy needs 1 GPU; {says}; the cluster has 0 GPU"
    )


def test_another_groups_lot_is_not_ours():
    answer = reply(2, 0, 2, instance="head-pod")
    answer.autoscaling_state.infeasible_gang_resource_requests.add(details=f"{'0b' * 18}:PACK|PENDING")
    assert "the autoscaler has not reported yet" in waiting_for("job/policy", [{"GPU": 1.0}], answer, GROUP)
