from __future__ import annotations

import pytest
from ray.core.generated import autoscaler_pb2

from cluster.preflight.capacity import GIB, Nodes, capacity_of, parse_nodes, this_machine
from configs.errors import ConfigError


class FakeHead:
    """A head that says what it is told to."""

    def __init__(self, limits: autoscaler_pb2.ClusterConfig | None = None, instance: str = "") -> None:
        self._limits, self._instance = limits, instance

    def resources(self) -> autoscaler_pb2.GetClusterStatusReply:
        reply = autoscaler_pb2.GetClusterStatusReply()
        node = reply.cluster_resource_state.node_states.add(ray_node_type_name="trainer", instance_id=self._instance)
        node.total_resources.update({"CPU": 4, "GPU": 1, "memory": 6 * GIB, "object_store_memory": 2 * GIB})
        node.total_resources["accelerator_type:H100"] = 1
        return reply

    def limits(self) -> autoscaler_pb2.ClusterConfig | None:
        return self._limits


def test_nodes_have_resources_and_memory() -> None:
    capacity = capacity_of(FakeHead())  # type: ignore[arg-type]
    (nodes,) = capacity.nodes
    assert (nodes.count, nodes.resources["CPU"], nodes.host_bytes) == (1, 4, 8 * GIB)
    assert nodes.gpu_bytes == int(0.97 * 80 * GIB)
    assert not capacity.open_ended


def test_an_autoscaler_that_tells_no_limits_leaves_it_open() -> None:
    assert capacity_of(FakeHead(instance="pod-1")).open_ended  # type: ignore[arg-type]


def test_an_autoscaler_that_tells_its_limits_is_believed() -> None:
    limits = autoscaler_pb2.ClusterConfig()
    limits.node_group_configs.add(name="trainer", max_count=3).resources.update({"CPU": 4})
    limits.node_group_configs.add(name="rollout", max_count=-1).resources.update({"TPU": 1})
    limits.node_group_configs.add(name="none", max_count=0).resources.update({"CPU": 64})
    capacity = capacity_of(FakeHead(limits, "pod-1"))  # type: ignore[arg-type]
    assert not capacity.open_ended
    assert capacity.all_of("CPU") == 12  # the one that is there counts once
    assert capacity.all_of("TPU") > 1000


def test_a_cluster_may_be_written_down() -> None:
    capacity = parse_nodes("2x64CPU,8GPU,1000GiB,H100 + 16CPU")
    first, second = capacity.nodes
    assert first == Nodes(2, {"CPU": 64, "GPU": 8}, 1000 * GIB, int(0.97 * 80 * GIB))
    assert second == Nodes(1, {"CPU": 16})
    assert capacity.all_of("CPU") == 144
    assert parse_nodes("1CPU,1GPU").with_gpus_of(GIB).gpu_bytes == GIB


@pytest.mark.parametrize("text", ["", "2x", "64", "8GPUS", "2xH100", "4CPU,RTX"])
def test_what_is_no_cluster_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--nodes: "):
        parse_nodes(text)


def test_this_machine_has_memory() -> None:
    (nodes,) = this_machine(3, 0).nodes
    assert dict(nodes.resources) == {"CPU": 3}
    assert nodes.host_bytes is not None
    assert nodes.host_bytes > 2**20
