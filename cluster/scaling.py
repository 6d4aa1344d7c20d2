"""Explains why a request waits for resources: what it needs, what the cluster has, and what the autoscaler does.

Ray's autoscaler (v2, which KubeRay runs) reports its state to the head: which nodes it is adding, and for which
placement groups it can add none. Only the autoscaler knows how many nodes it may add. A request larger than the cluster
is therefore refused at once only if there is no autoscaler; otherwise the request is made, and waits with a timeout.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from cluster.ray_internals import autoscaler_pb2

Bundle = Mapping[str, float]
Reply: TypeAlias = autoscaler_pb2.GetClusterStatusReply


def autoscaled(reply: Reply) -> bool:
    """Returns whether the cluster has an autoscaler.

    Nodes have their provider's instance ids only if there is an autoscaler, which needs them: KubeRay sets them for the
    pods of clusters with `enableInTreeAutoscaling`. The autoscaler's first report would come too late for this check.
    """
    return any(node.instance_id for node in living(reply))


def waiting_for(name: str, bundles: Sequence[Bundle], reply: Reply, group: str = "") -> str:
    """Returns a line like "job/policy needs 8 x (1 CPU, 1 GPU); the autoscaler is adding 2 nodes (2 trainer); ...".

    Args:
        name: name of the request, such as its placement group's.
        bundles: the requested bundles.
        reply: the head's report on resources.
        group: hexadecimal Ray ID of the requested placement group; empty if there is none.
    """
    wanted = sorted({resource for bundle in bundles for resource in bundle})
    has = f"the cluster has {_have(reply, wanted)}"
    why = f"{_what_the_autoscaler_does(reply, group)}; {has}" if autoscaled(reply) else f"no autoscaler here: {has}"
    return f"{name} needs {text_of(bundles)}; {why}"


def text_of(bundles: Iterable[Bundle]) -> str:
    """Formats bundles, e.g. "2 x (1 CPU, 1 GPU) + 4 CPU"; equal bundles are counted together."""
    shown = Counter(
        ", ".join(f"{amount:g} {name}" for name, amount in sorted(bundle.items()) if amount) or "nothing"
        for bundle in bundles
    )
    return " + ".join(f"{count} x ({text})" if count > 1 else text for text, count in shown.items())


def living(reply: Reply) -> list[autoscaler_pb2.NodeState]:
    """Returns the nodes that are not dead."""
    return [node for node in reply.cluster_resource_state.node_states if node.status != autoscaler_pb2.NodeStatus.DEAD]


def coming(reply: Reply) -> Counter[str]:
    """Returns the number of nodes of each kind that the autoscaler has requested and that have not joined yet."""
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
    return (
        "the autoscaler has not decided yet"
        if state.autoscaler_state_version
        else "the autoscaler has not reported yet"
    )


def _have(reply: Reply, resources: Sequence[str]) -> str:
    """Returns the amounts of these resources on living nodes, e.g. "4 GPU (1 free)"."""
    parts = []
    for name in resources:
        total = sum(node.total_resources.get(name, 0.0) for node in living(reply))
        free = sum(node.available_resources.get(name, 0.0) for node in living(reply))
        parts.append(f"{total:g} {name}" + (f" ({free:g} free)" if total else ""))
    return ", ".join(parts)
