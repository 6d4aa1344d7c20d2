"""Named placement groups for all roles, reserved together, with a timeout; logs why a group is still pending."""

from __future__ import annotations

import time

from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from cluster.status.pending import Waiting
from configs.errors import RunError

Bundle = dict[str, float]
_POLL_S = 0.2


class PlacementError(RunError):
    """Raised if a role's resources are not available in time.

    The message states what was requested and what the cluster has.
    """


def reserve(groups: dict[str, list[Bundle]], timeout_s: float) -> dict[str, PlacementGroup]:
    """Creates one placement group per name, with one bundle per process, and waits until all are placed.

    All groups are requested together, so that an autoscaler sees the whole demand at once. If placement takes more than
    a few seconds, the groups that are still pending are logged.

    Args:
        groups: each group's bundles (amounts by Ray's resource names), by the group's name.
        timeout_s: seconds to wait for all groups together.

    Returns:
        The placement groups by name.

    Raises:
        PlacementError: a group is still pending after `timeout_s`. All groups are then removed.
    """
    with Waiting() as waiting:
        asked = {name: placement_group(bundles, strategy="PACK", name=name) for name, bundles in groups.items()}
        deadline = time.monotonic() + timeout_s
        try:
            for name, group in asked.items():
                if not group.wait(max(0.1, deadline - time.monotonic())):
                    raise PlacementError(f"{waiting.words() or name}: timed out after {timeout_s:.0f} s")
        except BaseException:
            release(asked)
            raise
    return asked


def placed_again(groups: dict[str, PlacementGroup], timeout_s: float) -> None:
    """Waits until every bundle of `groups` is placed.

    Returns at once unless Ray must place the bundles of a lost node again. Logs what is pending, as `reserve` does.

    Raises:
        PlacementError: a group is still pending after `timeout_s` seconds.
    """
    with Waiting() as waiting:
        deadline = time.monotonic() + timeout_s
        while words := waiting.words(groups):
            if time.monotonic() > deadline:
                raise PlacementError(f"{words}: timed out after {timeout_s:.0f} s")
            time.sleep(_POLL_S)


def release(groups: dict[str, PlacementGroup]) -> None:
    """Removes the groups. Processes still in them are killed."""
    for group in groups.values():
        remove_placement_group(group)


def total(groups: dict[str, list[Bundle]]) -> Bundle:
    """Returns the sum of the resources of all bundles of all groups."""
    sums: Bundle = {}
    for bundles in groups.values():
        for bundle in bundles:
            for resource, amount in bundle.items():
                sums[resource] = sums.get(resource, 0.0) + amount
    return sums
