"""Waits for the application's deployments, and logs what they are waiting for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import ray
from ray import serve
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview, ReplicaState

from cluster.head import Head, HeadError
from cluster.scaling import text_of
from configs.errors import RunError

logger = logging.getLogger(__name__)

APPLICATION = "endpoint"
_LOOK_S = 1.0
_SAY_S = 15.0


class Stopped(Exception):
    """Raised if the user stops the command while it is waiting."""


def wait_until_running(timeout_s: float, stopped: Callable[[], bool]) -> float:
    """Waits until all deployments run, and logs their progress.

    Returns:
        Seconds waited.

    Raises:
        RunError: a deployment failed, or not all were running after `timeout_s` seconds; the message names the
            deployments and what they are waiting for.
        Stopped: `stopped` returned true.
    """
    began = time.monotonic()
    printed, printed_at = "", 0.0
    while True:
        now = time.monotonic() - began
        if stopped():
            raise Stopped
        status = serve.status().applications.get(APPLICATION)
        if status is not None:
            if status.status == ApplicationStatus.RUNNING:
                return now
            if status.status == ApplicationStatus.DEPLOY_FAILED:
                raise RunError(f"the endpoint did not start: {reason(status)}")
        words = describe(status)
        if now > timeout_s:
            raise RunError(f"not ready after {timeout_s:g} s: {words}{_pending_groups()}")
        if words != printed or now - printed_at >= _SAY_S:
            logger.info("%.0f s of at most %g: %s%s", now, timeout_s, words, _pending_groups())
            printed, printed_at = words, now
        time.sleep(_LOOK_S)


def describe(status: ApplicationStatusOverview | None) -> str:
    """Describes each deployment's progress, e.g. `gateway ready, engine:ppo 0 of 1 ready (1 starting)`."""
    if status is None or not status.deployments:
        return "deploying"
    parts = []
    for name, each in status.deployments.items():
        total = sum(each.replica_states.values())
        ready = each.replica_states.get(ReplicaState.RUNNING, 0)
        rest = [
            f"{count} {state.lower()}" for state, count in each.replica_states.items() if state != "RUNNING" and count
        ]
        if each.status == "HEALTHY":
            parts.append(f"{name} ready")
        elif not total:
            parts.append(f"{name} not started")
        else:
            parts.append(f"{name} {ready} of {total} ready" + (f" ({', '.join(rest)})" if rest else ""))
    return ", ".join(parts)


def reason(status: ApplicationStatusOverview) -> str:
    """Returns why the application failed: the last line of Serve's message about each unhealthy deployment."""
    failed = [
        f"{name}: {_last_line(each.message)}"
        for name, each in status.deployments.items()
        if each.message and each.status != "HEALTHY"
    ]
    return "; ".join(failed) or _last_line(status.message)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def _pending_groups() -> str:
    """Returns a clause about the pending CPU and GPU requests; empty if there are none."""
    try:
        with Head(ray.get_runtime_context().gcs_address) as head:
            state = head.resources().cluster_resource_state
    except HeadError as error:
        return f"; {error}"
    wanted = [
        dict(each.request.resources_bundle) for each in state.pending_resource_requests for _ in range(each.count)
    ]
    wanted += [
        dict(bundle.resources_bundle)
        for gang in state.pending_gang_resource_requests
        for bundle in gang.requests or [each for group in gang.bundle_selectors for each in group.resource_requests]
    ]
    return f"; waiting for {text_of(wanted)} to become free" if wanted else ""
