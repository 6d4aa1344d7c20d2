"""Waiting for Ray with a limit, and saying what was waited for."""

from __future__ import annotations

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

from configs.recipe import ConfigError, RunError

# How long after one rank's error another one's death may become known.
DEATH_IS_KNOWN_S = 10.0
_DEATHS = (RayActorError, NodeDiedError, ObjectLostError, ActorPlacementGroupRemoved)


class RoleError(RunError):
    """A role failed, died or did not answer in time; the message names it and what it was doing."""


class RoleDied(RoleError):
    """A role's process is gone or silent: the work was lost, not wrong, and another process could do it."""


def get(refs: Any, what: str, timeout_s: float) -> Any:
    """`ray.get` that waits at most `timeout_s` seconds for `what`, e.g. "policy: learn".

    Raises RoleDied for a timeout or a dead process. What the remote code raised comes through as it is, unless it was
    the death of another rank of `refs` that made it fail.
    """
    try:
        return ray.get(refs, timeout=timeout_s)
    except GetTimeoutError as error:
        raise RoleDied(f"{what}: no answer after {timeout_s:.0f} s") from error
    except _DEATHS as error:
        raise RoleDied(f"{what}: its process died: {_first_line(error)}") from error
    except RayTaskError as error:
        # A rank whose partner dies fails in their next collective call, maybe before its partner's death is known.
        if isinstance(refs, list) and (death := _death(refs)):
            raise RoleDied(f"{what}: its process died: {_first_line(death)}") from error
        if isinstance(error.cause, RunError | ConfigError):
            raise error.cause from error  # its one line instead of the remote traceback
        raise


def _death(refs: list[ray.ObjectRef]) -> RayError | None:
    ready, _ = ray.wait(refs, num_returns=len(refs), timeout=DEATH_IS_KNOWN_S)
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
