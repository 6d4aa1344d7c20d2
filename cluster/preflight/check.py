"""Checks a plan against a capacity: the processes of each role, the memory of nodes and GPUs, and disk space."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cluster.placement import total
from cluster.preflight.capacity import Capacity, Nodes
from cluster.preflight.needs import Disk, Finding, Level, Need, Place, Plan, gib

ERROR = 0.15
"""Largest relative error of the estimates, enforced by tests. A need that exceeds the limit by less is `tight`, not
refused."""


def check(plan: Plan, capacity: Capacity) -> list[Finding]:
    """Returns all findings, the plan's own first."""
    found = list(plan.findings)
    for name, places in plan.groups.items():
        found += _placement(places, capacity, f"{name}: " if len(plan.groups) > 1 else "")
        found += (finding for place in places for finding in _gpu_memory(place, capacity))
        found += _host_memory(places, capacity)
    return [*found, *(_space(disk) for disk in plan.disks)]


def _placement(places: Sequence[Place], capacity: Capacity, group: str) -> Iterator[Finding]:
    """Checks the total of each resource, and whether the nodes can hold each placement group's bundles."""
    short: Level = "unknown" if capacity.open_ended else "refused"
    asked = " now; its autoscaler will be asked for more" if capacity.open_ended else " in all"
    for name, amount in total({place.name: [dict(bundle) for bundle in place.bundles] for place in places}).items():
        has = capacity.all_of(name)
        if amount > has:
            yield Finding(short, "resources", f"{group}needs {amount:g} {name} but the Ray cluster has {has:g}{asked}")
        elif amount:
            yield Finding("fits", "resources", f"{group}{amount:g} of {has:g} {name}")
    for place in places:
        bundle, count = place.bundles[0], len(place.bundles)  # no later bundle is larger
        held = sum(nodes.count * _holds(nodes, bundle, count) for nodes in capacity.nodes)
        if held < count and all(amount * count <= capacity.all_of(name) for name, amount in bundle.items()):
            words = ", ".join(f"{amount:g} {name}" for name, amount in bundle.items())
            yield Finding(short, place.name, f"needs {count} x ({words}) but nodes hold {held} of these{asked}")


def _holds(nodes: Nodes, bundle: Mapping[str, float], most: int) -> int:
    """Returns how many such bundles fit on one of these nodes, at most `most`."""
    counts = [int(nodes.resources.get(name, 0.0) / amount + 1e-9) for name, amount in bundle.items() if amount > 0]
    return min([most, *counts])


def _gpu_memory(place: Place, capacity: Capacity) -> Iterator[Finding]:
    """Checks the GPU memory of bundle 0, which holds a rank of every role that shares it."""
    share = place.bundles[0].get("GPU", 0.0)
    size = place.gpu_bytes()
    if not share or not size:
        return
    if capacity.gpu_bytes is None:
        yield Finding("unknown", place.name, f"takes {gib(size)} of a GPU, whose memory is not known here (--gpu-gib)")
        return
    who = "the largest rank, with what the others keep," if place.in_turn else "a rank"
    yield _compared(place.name, size, int(capacity.gpu_bytes * min(1.0, share)), "of a GPU", who)


def _host_memory(places: Sequence[Place], capacity: Capacity) -> Iterator[Finding]:
    """Checks the fullest node's memory. Bundles go group by group to the first node with room, as with PACK."""
    free = [(nodes, dict(nodes.resources)) for nodes in capacity.nodes for _ in range(min(nodes.count, 4096))]
    held: list[list[Need]] = [[] for _ in free]
    for place in places:
        for rank, bundle in enumerate(place.bundles):
            for (_, left), here in zip(free, held, strict=True):
                if all(left.get(name, 0.0) >= amount - 1e-9 for name, amount in bundle.items()):
                    for name, amount in bundle.items():
                        left[name] = left.get(name, 0.0) - amount
                    here += place.of_rank(rank)
                    break
    sums = [(_together(here), nodes, here) for (nodes, _), here in zip(free, held, strict=True) if here]
    if not sums:
        return
    size, nodes, here = max(sums, key=lambda entry: entry[0] / (entry[1].host_bytes or 1))
    counts = Counter(need.role for need in here)
    ranks = ", ".join(f"{count} {role}" for role, count in counts.items())
    subject = max(here, key=lambda need: need.host_bytes * counts[need.role]).role
    if nodes.host_bytes is None:
        yield Finding("unknown", subject, f"the fullest node ({ranks}) takes {gib(size)}; its memory is not known")
    else:
        yield _compared(subject, size, nodes.host_bytes, "of its memory", f"the fullest node ({ranks})")


def _together(needs: Sequence[Need]) -> int:
    shared = max(need.host_shared_bytes for need in needs)
    return sum(need.host_bytes - need.host_shared_bytes for need in needs) + shared


def _compared(subject: str, size: int, has: int, of: str, who: str) -> Finding:
    text = f"{who} needs {gib(size)} but has {gib(has)} {of}"
    if size * (1 - ERROR) > has:
        return Finding("refused", subject, text)
    if size > has:
        return Finding("tight", subject, f"{text}, which is within the estimate's error of {ERROR:.0%}")
    return Finding("fits", subject, f"{who} needs {gib(size)} and has {gib(has)} {of}")


def _space(disk: Disk) -> Finding:
    """Checks that the run can write to the folder and that its disk has space for what the run has yet to write."""
    folder = Path(disk.folder)
    written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
    here = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(here, os.W_OK):
        return Finding("refused", "disk", f"{here} cannot be written to; change its permissions or set CHIMED_RUNS")
    free, wanted = shutil.disk_usage(here).free, max(0, disk.bytes - written)
    if wanted > free:
        text = f"the run will write {gib(wanted)} ({disk.why}) but {here} has {gib(free)} free"
        return Finding("refused", "disk", text)
    return Finding("fits", "disk", f"{gib(wanted)} to write ({disk.why}), {gib(free)} free at {here}")
