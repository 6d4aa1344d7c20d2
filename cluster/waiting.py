"""Waits for Ray calls with a timeout; error messages name the role and the call."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import (
    ActorPlacementGroupRemoved,
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    RayError,
    RayTaskError,
)

from configs.errors import ConfigError, RunError, first_line

# Time within which the death of another rank becomes known after one rank's error, in seconds.
DEATH_IS_KNOWN_S = 10.0
POLL_S = 1.0
_DEATHS = (RayActorError, NodeDiedError, ObjectLostError, ActorPlacementGroupRemoved)

Poll = Callable[[], None]
"""A callback that waits call about once a second; it raises RoleDied if the awaited process is lost."""


class RoleError(RunError):
    """Raised if a role fails, dies, or does not respond in time; the message names the role and the call."""


class RoleDied(RoleError):
    """Raised if a role's process dies or does not respond: its work is lost, but another process can repeat it."""

    @property
    def role(self) -> str:
        """The role that was waited for, which the message begins with: "policy" in "policy: update: …"."""
        return str(self).partition(":")[0]


def next_of(stream: Any, what: str, timeout_s: float, poll: Poll | None = None) -> ray.ObjectRef | None:
    """Returns the next reference of a streaming call, or None after the last one.

    Args:
        stream: the streaming call's generator.
        what: role and call, for error messages.
        timeout_s: seconds to wait.
        poll: called about once a second while waiting.

    Raises:
        RoleDied: no reference arrived within `timeout_s` seconds.
    """
    deadline = time.monotonic() + timeout_s
    while not ray.wait([stream], timeout=POLL_S, fetch_local=False)[0]:
        if time.monotonic() > deadline:
            raise RoleDied(f"{what}: no response after {timeout_s:.0f} s")
        if poll:
            poll()
    return next(stream, None)


def get(refs: Any, what: str, timeout_s: float, poll: Poll | None = None) -> Any:
    """Runs `ray.get` with a timeout, and calls `poll` about once a second while it waits.

    Args:
        refs: one reference, or a list of them.
        what: role and call, for error messages, e.g. "policy: update".
        timeout_s: seconds to wait for all of `refs`.
        poll: called about once a second while waiting; exceptions that it raises are propagated.

    Returns:
        The value, or a list of values in the order of `refs`.

    Raises:
        RoleDied: the timeout expired, a process died, or remote code failed because another rank of `refs` died.
        RunError, ConfigError: the remote code raised this error.
        RayTaskError: the remote code raised any other error.
    """
    try:
        return _get(refs, what, timeout_s, poll)
    except _DEATHS as error:
        raise RoleDied(f"{what}: its process died: {first_line(error)}") from error
    except RayTaskError as error:
        # If a rank dies, the other ranks fail in their next collective call, maybe before Ray reports the death.
        if isinstance(refs, list) and (death := _death(refs)):
            raise RoleDied(f"{what}: its process died: {first_line(death)}") from error
        if isinstance(error.cause, RunError | ConfigError):
            raise error.cause from error  # its one line instead of the remote traceback
        raise


def _get(refs: Any, what: str, timeout_s: float, poll: Poll | None) -> Any:
    waiting: list[ray.ObjectRef] = list(refs) if isinstance(refs, list) else [refs]
    values: dict[ray.ObjectRef, Any] = {}
    deadline = time.monotonic() + timeout_s
    while waiting:
        left = deadline - time.monotonic()
        if left <= 0:
            raise RoleDied(f"{what}: no response after {timeout_s:.0f} s")
        # A ready object is fetched with all the remaining time: interrupting to call `poll` would restart the transfer.
        ready, waiting = ray.wait(waiting, timeout=min(left, POLL_S), fetch_local=False)
        try:
            values |= {ref: ray.get(ref, timeout=max(left, POLL_S)) for ref in ready}
        except GetTimeoutError as error:
            raise RoleDied(f"{what}: no response after {timeout_s:.0f} s") from error
        if poll and not ready:
            poll()
    return [values[ref] for ref in refs] if isinstance(refs, list) else values[refs]


def _death(refs: list[ray.ObjectRef]) -> RayError | None:
    ready, _ = ray.wait(refs, num_returns=len(refs), timeout=DEATH_IS_KNOWN_S, fetch_local=False)
    for ref in ready:
        try:
            ray.get(ref, timeout=DEATH_IS_KNOWN_S)
        except _DEATHS as death:
            return death
        except RayTaskError:
            continue
    return None
