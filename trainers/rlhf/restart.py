"""Roles that die start again, a limited number of times a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from cluster.waiting import RoleDied

T = TypeVar("T")


def starting_again(stage: str, max_failures: int, work: Callable[[], T]) -> T:
    """What `work` returns; it is called again whenever a role's process died in it.

    `work` starts the roles it needs, ends them also when it fails, and goes on from what lies on disk. Raises RoleDied
    at the death after the `max_failures`-th.
    """
    failures = 0
    while True:
        try:
            return work()
        except RoleDied as error:
            failures += 1
            if failures > max_failures:
                raise
            print(f"{stage}: {error}; the roles start again (failure {failures} of at most {max_failures})", flush=True)
