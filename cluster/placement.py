"""A placement group for every role: reserved as one, named, and never waited for without a word or a limit."""

from __future__ import annotations

import time

from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from cluster.pending import Waiting
from configs.errors import RunError

Bundle = dict[str, float]
_SECONDS_BETWEEN_LOOKS = 0.2


class PlacementError(RunError):
    """A role's resources could not be had; the message says what was asked for and what there is."""


def reserve(groups: dict[str, list[Bundle]], timeout_s: float) -> dict[str, PlacementGroup]:
    """One placement group a name, one bundle a process; returns when all are placed.

    All are asked for together, so an autoscaler sees the whole need at once. While it takes longer than a moment, what
    is waited for is printed. Raises PlacementError after `timeout_s` seconds, in the same words; then nothing stays
    reserved.
    """
    with Waiting() as waiting:
        asked = {name: placement_group(bundles, strategy="PACK", name=name) for name, bundles in groups.items()}
        deadline = time.monotonic() + timeout_s
        try:
            for name, group in asked.items():
                if not group.wait(max(0.1, deadline - time.monotonic())):
                    raise PlacementError(f"{waiting.words() or name}: gave up after {timeout_s:.0f} s")
        except BaseException:
            release(asked)
            raise
    return asked


def placed_again(groups: dict[str, PlacementGroup], timeout_s: float) -> None:
    """Returns when every bundle of `groups` has a place: at once, unless a node went and Ray has to find it another.

    Says what is waited for, as `reserve` does. Raises PlacementError, in the same words, after `timeout_s` seconds.
    """
    with Waiting() as waiting:
        deadline = time.monotonic() + timeout_s
        while words := waiting.words(groups):
            if time.monotonic() > deadline:
                raise PlacementError(f"{words}: gave up after {timeout_s:.0f} s")
            time.sleep(_SECONDS_BETWEEN_LOOKS)


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
