"""Waiting for Ray with a limit, and saying what was waited for."""

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

from configs.errors import ConfigError, RunError

# How long after one rank's error another one's death may become known.
DEATH_IS_KNOWN_S = 10.0
SECONDS_BETWEEN_LOOKS = 1.0
_DEATHS = (RayActorError, NodeDiedError, ObjectLostError, ActorPlacementGroupRemoved)

Look = Callable[[], None]
"""Called about once a second while something is waited for; raises RoleDied when waiting has become vain."""


class RoleError(RunError):
    """A role failed, died or did not answer in time; the message names it and what it was doing."""


class RoleDied(RoleError):
    """A role's process is gone or silent: the work was lost, not wrong, and another process could do it."""

    @property
    def role(self) -> str:
        """Whom the message names first, e.g. "policy" of "policy: learn: …": who was waited for."""
        return str(self).partition(":")[0]


def next_of(stream: Any, what: str, timeout_s: float, look: Look | None = None) -> ray.ObjectRef | None:
    """The next reference that a streaming call gives, None after its last one. Raises RoleDied as `get` does."""
    deadline = time.monotonic() + timeout_s
    while not ray.wait([stream], timeout=SECONDS_BETWEEN_LOOKS, fetch_local=False)[0]:
        if time.monotonic() > deadline:
            raise RoleDied(f"{what}: no answer after {timeout_s:.0f} s")
        if look:
            look()
    return next(stream, None)


def get(refs: Any, what: str, timeout_s: float, look: Look | None = None) -> Any:
    """`ray.get` that waits at most `timeout_s` seconds for `what`, e.g. "policy: learn", and looks around meanwhile.

    Raises RoleDied for a timeout or a dead process, and what `look` raises. What the remote code raised comes through as
    it is, unless it was the death of another rank of `refs` that made it fail.
    """
    try:
        return _get(refs, what, timeout_s, look)
    except _DEATHS as error:
        raise RoleDied(f"{what}: its process died: {_first_line(error)}") from error
    except RayTaskError as error:
        # A rank whose partner dies fails in their next collective call, maybe before its partner's death is known.
        if isinstance(refs, list) and (death := _death(refs)):
            raise RoleDied(f"{what}: its process died: {_first_line(death)}") from error
        if isinstance(error.cause, RunError | ConfigError):
            raise error.cause from error  # its one line instead of the remote traceback
        raise


def _get(refs: Any, what: str, timeout_s: float, look: Look | None) -> Any:
    waiting: list[ray.ObjectRef] = list(refs) if isinstance(refs, list) else [refs]
    values: dict[ray.ObjectRef, Any] = {}
    deadline = time.monotonic() + timeout_s
    while waiting:
        left = deadline - time.monotonic()
        if left <= 0:
            raise RoleDied(f"{what}: no answer after {timeout_s:.0f} s")
        # Fetched when it is there, with all the time that is left: to look around would begin a transfer again.
        ready, waiting = ray.wait(waiting, timeout=min(left, SECONDS_BETWEEN_LOOKS), fetch_local=False)
        try:
            values |= {ref: ray.get(ref, timeout=max(left, SECONDS_BETWEEN_LOOKS)) for ref in ready}
        except GetTimeoutError as error:
            raise RoleDied(f"{what}: no answer after {timeout_s:.0f} s") from error
        if look and not ready:
            look()
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


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
