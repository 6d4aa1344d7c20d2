"""A snapshot of a cluster and the runs on it, assembled from the head's data."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from cluster.head import Head
from cluster.liveness.registry import DRIVER, ProcessRecord
from cluster.ray_internals import autoscaler_pb2, gcs_pb2
from cluster.scaling import Reply, coming, living
from cluster.status.pending import describe, pending_groups, seconds_pending

Actor: TypeAlias = gcs_pb2.ActorTableData
LATE_S = 30.0
"""Seconds without a heartbeat after which a process is shown as late: six heartbeat intervals."""


@dataclass(frozen=True)
class RankView:
    """One process of a run. Values that are not known yet are None."""

    role: str
    rank: int
    state: str
    """Ray's state of the actor, in lower case; `late` if it is alive but sends no heartbeats, `gone` if Ray has no such
    actor."""
    node: str
    bundle: str | None
    """Placement group and bundle, e.g. `policy+critic 0`; processes in the same bundle share its CPUs and GPUs."""
    pid: int | None
    restarts: int
    resident_bytes: int | None
    beat_s: float | None
    """Seconds since the last heartbeat."""
    weights_version: int | None


@dataclass(frozen=True)
class RunView:
    """One run. Metrics are those of its last step; a metric is None if the stage does not have it."""

    name: str
    stage: str
    state: str
    step: int
    steps: int | None
    step_s: float
    """Seconds since the last step was done."""
    tokens_per_second: float | None
    reward: float | None
    kl_to_reference: float | None
    loss: float | None
    weights_version: int | None
    ranks: tuple[RankView, ...]


@dataclass(frozen=True)
class NodeView:
    """One living node; resources by Ray's names, memory in bytes. `kind` is Ray's node type, empty if there is none."""

    node: str
    kind: str
    state: str
    total: dict[str, float]
    used: dict[str, float]


@dataclass(frozen=True)
class WaitingView:
    """A pending placement group: its name, why it waits, and the seconds since it was requested."""

    name: str
    why: str
    asked_s: float


@dataclass(frozen=True)
class ClusterView:
    """Everything that `python -m cluster.status` shows."""

    address: str
    runs: tuple[RunView, ...] = ()
    waiting: tuple[WaitingView, ...] = ()
    nodes: tuple[NodeView, ...] = ()
    coming: dict[str, int] = field(default_factory=dict)
    """Nodes that the autoscaler is adding, by kind."""


def snapshot(head: Head) -> ClusterView:
    """Queries the head for a snapshot. Raises HeadError if it does not respond."""
    reply, now = head.resources(), time.time()
    names = node_names(reply)
    groups = {group.placement_group_id: group.name for group in head.groups()}
    alive = {job.job_id.hex() for job in head.jobs() if not job.is_dead}
    notices = head.notices()
    runs = []
    for driver in sorted((notice for notice in notices if notice.role == DRIVER), key=lambda notice: notice.run):
        others = [notice for notice in notices if notice.run == driver.run and notice.job == driver.job]
        actors = head.actors(driver.job) if driver.job in alive else []
        runs.append(run_view(driver, others, actors, driver.job in alive, names, groups, now))
    waiting = [
        WaitingView(group.name, describe(group, reply), seconds_pending(group)) for group in pending_groups(head)
    ]
    nodes = [node_view(node, names) for node in living(reply)]
    return ClusterView(head.address, tuple(runs), tuple(waiting), tuple(nodes), dict(coming(reply)))


def run_view(
    driver: ProcessRecord,
    notices: Iterable[ProcessRecord],
    actors: Iterable[Actor],
    alive: bool,
    names: dict[str, str],
    groups: Mapping[bytes, str],
    now: float,
) -> RunView:
    """Assembles a run from its driver's record, its processes' records, and Ray's actors.

    Args:
        driver: the driver's record.
        notices: the records of the run's processes, including the driver's.
        actors: the actors of the driver's job.
        alive: whether the driver's job is alive.
        names: display names of nodes, by their ids.
        groups: names of placement groups, by their ids.
        now: Unix time.
    """
    progress = driver.progress
    assert progress is not None  # every driver's record has it
    state = progress.state if alive or progress.state != "running" else "ended without a report"
    by_id = {actor.actor_id.hex(): actor for actor in actors}
    bundles = {key: _bundle(actor, groups, driver.run) for key, actor in by_id.items()}
    ranks = [
        _noticed(notice, by_id.pop(notice.actor, None), names, bundles.get(notice.actor), now) for notice in notices
    ]
    for key, actor in by_id.items():
        if place := re.fullmatch(rf"{re.escape(driver.run)}/(\w+)-(\d+)", actor.name):
            ranks.append(_not_noticed(actor, place[1], int(place[2]), names, bundles[key]))
    figures = progress.figures
    version = figures.get("weights_version")
    return RunView(
        name=driver.run,
        stage=progress.stage,
        state=state,
        step=progress.step,
        steps=progress.steps,
        step_s=max(0.0, now - progress.step_at),
        tokens_per_second=figures.get("tokens_per_second"),
        reward=figures.get("reward"),
        kl_to_reference=figures.get("kl_to_reference"),
        loss=figures.get("loss"),
        weights_version=None if version is None else int(version),
        ranks=tuple(sorted(ranks, key=lambda rank: (rank.role != DRIVER, rank.role, rank.rank))) if alive else (),
    )


def node_names(reply: Reply) -> dict[str, str]:
    """Returns each node's display name by its id: the address, with the end of the id if nodes share an address."""
    nodes = reply.cluster_resource_state.node_states
    shared = Counter(node.node_ip_address for node in nodes if node.status != autoscaler_pb2.NodeStatus.DEAD)
    return {
        node.node_id.hex(): node.node_ip_address
        + (f"/{node.node_id.hex()[-5:]}" if shared[node.node_ip_address] > 1 else "")
        for node in nodes
    }


def node_view(node: autoscaler_pb2.NodeState, names: dict[str, str]) -> NodeView:
    """Returns the view of a living node, without Ray's marker resources (`node:...`, `bundle_group_...`)."""
    total = {name: amount for name, amount in sorted(node.total_resources.items()) if _is_real(name)}
    used = {name: round(amount - node.available_resources.get(name, 0.0), 4) for name, amount in total.items()}
    state = autoscaler_pb2.NodeStatus.Name(node.status).lower()
    return NodeView(names[node.node_id.hex()], node.ray_node_type_name, state, total, used)


def _noticed(
    notice: ProcessRecord, actor: Actor | None, names: dict[str, str], bundle: str | None, now: float
) -> RankView:
    beat = max(0.0, now - notice.at)
    state = "alive" if notice.role == DRIVER else _state(actor) if actor else "gone"
    return RankView(
        role=notice.role,
        rank=notice.rank,
        state="late" if state == "alive" and beat > LATE_S else state,
        node=names.get(notice.node, "a removed node"),
        bundle=bundle,
        pid=notice.pid,
        restarts=max(notice.restarts, actor.num_restarts if actor else 0),
        resident_bytes=notice.resident_bytes,
        beat_s=beat,
        weights_version=notice.weights_version,
    )


def _not_noticed(actor: Actor, role: str, rank: int, names: dict[str, str], bundle: str | None) -> RankView:
    """Returns the view of an actor without a record: it is pending, is starting, or died before its first heartbeat."""
    node = names.get(actor.address.node_id.hex(), "")
    return RankView(role, rank, _state(actor), node, bundle, actor.pid or None, actor.num_restarts, None, None, None)


def _bundle(actor: Actor, groups: Mapping[bytes, str], run: str) -> str | None:
    """Returns the placement group and bundle of an actor; None if it is not in a named group."""
    name = groups.get(actor.placement_group_id, "").removeprefix(f"{run}/")
    for resource in actor.required_resources:
        if name and (found := re.match(r"bundle_group_(\d+)_", resource)):
            return f"{name} {found[1]}"
    return None


def _state(actor: Actor) -> str:
    return Actor.ActorState.Name(actor.state).lower().replace("_", " ")


def _is_real(resource: str) -> bool:
    return not resource.startswith(("node:", "bundle_group_")) and "_group_" not in resource
