"""A placement group for every role: reserved as one, named, and never waited for without a limit."""

from __future__ import annotations

import time

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from configs.recipe import RunError

Bundle = dict[str, float]


class PlacementError(RunError):
    """A role's resources could not be had; the message says what was asked for and what there is."""


def reserve(groups: dict[str, list[Bundle]], timeout_s: float) -> dict[str, PlacementGroup]:
    """One placement group a name, one bundle a process; returns when all are placed.

    Groups that fit the cluster as a whole are asked for together, so an autoscaler sees the whole need at once.
    Raises PlacementError after `timeout_s` seconds, naming the first role left out; then nothing stays reserved.
    """
    asked = {name: placement_group(bundles, strategy="PACK", name=name) for name, bundles in groups.items()}
    deadline = time.monotonic() + timeout_s
    for name, group in asked.items():
        if not group.wait(max(0.1, deadline - time.monotonic())):
            for other in asked.values():
                remove_placement_group(other)
            raise PlacementError(
                f"{name}: {_text(groups[name])} could not be placed within {timeout_s:.0f} s; the cluster has "
                f"{_text([ray.cluster_resources()])} in all and {_text([ray.available_resources()])} free"
            )
    return asked


def release(groups: dict[str, PlacementGroup]) -> None:
    """Gives the groups back; processes still in them end."""
    for group in groups.values():
        remove_placement_group(group)


def total(groups: dict[str, list[Bundle]]) -> Bundle:
    """Resources of all bundles of all groups."""
    sums: Bundle = {}
    for bundles in groups.values():
        for bundle in bundles:
            for resource, amount in bundle.items():
                sums[resource] = sums.get(resource, 0.0) + amount
    return sums


def _text(bundles: list[Bundle]) -> str:
    shown = [
        ", ".join(f"{amount:g} {name}" for name, amount in sorted(bundle.items()) if name in ("CPU", "GPU"))
        or "nothing"
        for bundle in bundles
    ]
    counted = {text: shown.count(text) for text in shown}
    return " + ".join(f"{count} x ({text})" if count > 1 else text for text, count in counted.items())
