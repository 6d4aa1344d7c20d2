"""Why something waits for resources, in words: what it needs, what the cluster has, what an autoscaler does about it.

Ray's autoscaler (v2, which KubeRay runs) reports its state to the head: which nodes it is adding, and which placement
groups it can bring no node for. What it may add at most is known to it alone, so a need larger than the cluster is
refused at once only where no autoscaler is; where one is, the need is put to it and waited for with a limit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from cluster.ray_internals import autoscaler_pb2

Bundle = Mapping[str, float]
Reply: TypeAlias = autoscaler_pb2.GetClusterStatusReply


def autoscaled(reply: Reply) -> bool:
    """Whether an autoscaler looks after the cluster.

    It needs its nodes to have the ids that their provider knows them by, and only then have they any: KubeRay gives
    them to pods of clusters with `enableInTreeAutoscaling`. An autoscaler's report would come too late to tell.
    """
    return any(node.instance_id for node in living(reply))


def waiting_for(name: str, bundles: Sequence[Bundle], reply: Reply, group: str = "") -> str:
    """One line, e.g. "job/policy needs 8 x (1 CPU, 1 GPU); the autoscaler is adding 2 nodes (2 trainer); ...".

    Args:
        name: who waits.
        bundles: what it asks for.
        reply: what the head says.
        group: Ray's id (hex) of the placement group that was asked for.
    """
    wanted = sorted({resource for bundle in bundles for resource in bundle})
    has = f"the cluster has {_have(reply, wanted)}"
    why = f"{_what_the_autoscaler_does(reply, group)}; {has}" if autoscaled(reply) else f"no autoscaler here: {has}"
    return f"{name} needs {text_of(bundles)}; {why}"


def text_of(bundles: Iterable[Bundle]) -> str:
    """Bundles, e.g. "2 x (1 CPU, 1 GPU) + 4 CPU"; equal ones together."""
    shown = Counter(
        ", ".join(f"{amount:g} {name}" for name, amount in sorted(bundle.items()) if amount) or "nothing"
        for bundle in bundles
    )
    return " + ".join(f"{count} x ({text})" if count > 1 else text for text, count in shown.items())


def living(reply: Reply) -> list[autoscaler_pb2.NodeState]:
    """The nodes that are not dead."""
    return [node for node in reply.cluster_resource_state.node_states if node.status != autoscaler_pb2.NodeStatus.DEAD]


def coming(reply: Reply) -> Counter[str]:
    """How many nodes of which kind the autoscaler has asked for that have not joined yet."""
    state = reply.autoscaling_state
    kinds: Counter[str] = Counter(node.ray_node_type_name for node in state.pending_instances)
    for request in state.pending_instance_requests:
        kinds[request.ray_node_type_name] += request.count
    return kinds


def _what_the_autoscaler_does(reply: Reply, group: str) -> str:
    state, kinds = reply.autoscaling_state, coming(reply)
    if kinds:
        count = kinds.total()
        which = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
        return f"the autoscaler is adding {count} node{'s' if count > 1 else ''} ({which})"
    if group and any(request.details.startswith(group) for request in state.infeasible_gang_resource_requests):
        return "the autoscaler has no nodes left to add for it"
    if state.failed_instance_requests:
        failed = max(state.failed_instance_requests, key=lambda request: request.failed_ts)
        return f"the autoscaler could not add {failed.count} {failed.ray_node_type_name}: {failed.reason}"
    return "the autoscaler has not decided yet" if state.autoscaler_state_version else "no word from the autoscaler yet"


def _have(reply: Reply, resources: Sequence[str]) -> str:
    """What living nodes have of each resource, e.g. "4 GPU (1 free)"."""
    parts = []
    for name in resources:
        total = sum(node.total_resources.get(name, 0.0) for node in living(reply))
        free = sum(node.available_resources.get(name, 0.0) for node in living(reply))
        parts.append(f"{total:g} {name}" + (f" ({free:g} free)" if total else ""))
    return ", ".join(parts)
