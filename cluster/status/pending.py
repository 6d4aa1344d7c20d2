"""Pending placement groups, what they wait for, and a thread that logs both while a driver waits."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection

import ray

from cluster.head import Head, HeadError
from cluster.polling import PollingThread
from cluster.ray_internals import PlacementGroupTableData
from cluster.scaling import Reply, waiting_for

logger = logging.getLogger(__name__)

_POLL_S = 3.0
_REPORT_EVERY_S = 10.0


def pending_groups(head: Head, job: str | None = None) -> list[PlacementGroupTableData]:
    """Returns the placement groups that wait for resources, oldest first.

    Args:
        head: the cluster's head.
        job: hexadecimal Ray job ID of the job whose groups are returned; None for all jobs.
    """
    waiting = (PlacementGroupTableData.PENDING, PlacementGroupTableData.RESCHEDULING)
    groups = [group for group in head.groups() if group.state in waiting and job in (None, group.creator_job_id.hex())]
    return sorted(groups, key=lambda group: (group.placement_group_creation_timestamp_ms, group.name))


def describe(group: PlacementGroupTableData, reply: Reply) -> str:
    """Returns a line that states what a group waits for; `reply` is the head's report on resources."""
    lost = [bundle for bundle in group.bundles if not bundle.node_id] or group.bundles
    name = group.name or "a group of workers"  # Ray Train does not name its groups
    return waiting_for(name, [dict(bundle.unit_resources) for bundle in lost], reply, group.placement_group_id.hex())


def seconds_pending(group: PlacementGroupTableData) -> float:
    """Returns how long ago the group was requested, in seconds."""
    return max(0.0, time.time() - group.placement_group_creation_timestamp_ms / 1000)


class Waiting(PollingThread):
    """A thread that logs, while its `with` block runs, which placement groups of this job are pending, and why."""

    def __init__(self) -> None:
        super().__init__("waiting", _POLL_S)
        context = ray.get_runtime_context()
        self._head = Head(context.gcs_address)
        self._job = context.get_job_id()
        self._said, self._said_at = "", 0.0
        self._began = time.monotonic()

    def words(self, names: Collection[str] | None = None) -> str:
        """Returns a line about the first pending group and the number of others; an empty string if none is pending.

        Args:
            names: names of the groups to consider; by default, all groups of this job.
        """
        groups = [group for group in pending_groups(self._head, self._job) if names is None or group.name in names]
        if not groups:
            return ""
        more = f" (and {len(groups) - 1} more wait)" if len(groups) > 1 else ""
        return describe(groups[0], self._head.resources()) + more

    def poll(self) -> None:
        """Logs what is pending if that has changed, and every `_REPORT_EVERY_S` seconds otherwise."""
        try:
            words = self.words()
        except HeadError as error:
            words = str(error)
        now = time.monotonic()
        if not words:
            self._began = now
        elif words != self._said or now - self._said_at >= _REPORT_EVERY_S:
            logger.info("%s (%.0f s)", words, now - self._began)
            self._said_at = now
        self._said = words

    def stop(self) -> None:
        """Stops the thread and closes the connection to the head."""
        super().stop()
        self._head.close()
