"""Restarts the roles after a process of a role has died, a limited number of times per run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from cluster.waiting import RoleDied

logger = logging.getLogger(__name__)

T = TypeVar("T")


def starting_again(max_failures: int, work: Callable[[], T]) -> T:
    """Calls `work` and returns its result; calls it again whenever a process of a role dies during the call.

    Args:
        max_failures: how many failures are tolerated.
        work: starts the roles that it needs, stops them even if it fails, and continues from the state on disk.

    Raises:
        RoleDied: processes died more than `max_failures` times.
    """
    failures = 0
    while True:
        try:
            return work()
        except RoleDied as error:
            failures += 1
            if failures > max_failures:
                raise
            logger.warning("%s; restarting the roles (failure %d of at most %d)", error, failures, max_failures)
