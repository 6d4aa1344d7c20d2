"""Waiting for Ray with a limit, and saying what was waited for."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from configs.recipe import RunError


class RoleError(RunError):
    """A role failed, died or did not answer in time; the message names it and what it was doing."""


def get(refs: Any, what: str, timeout_s: float) -> Any:
    """`ray.get` that waits at most `timeout_s` seconds for `what`, e.g. "policy: learn".

    Raises RoleError for a timeout or a dead process. What the remote code raised comes through as it is.
    """
    try:
        return ray.get(refs, timeout=timeout_s)
    except GetTimeoutError as error:
        raise RoleError(f"{what}: no answer after {timeout_s:.0f} s") from error
    except RayActorError as error:
        raise RoleError(f"{what}: its process died: {str(error).splitlines()[0]}") from error
