"""Crash logs of lost processes: the path of each process's output, and its last line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ray

from cluster.liveness.registry import ProcessRecord
from cluster.ray_internals import session_folder


def crash_summary(notices: Sequence[ProcessRecord]) -> str:
    """Returns the paths of these processes' stderr logs and, for processes on this node, the last line of each."""
    if not notices:
        return "it died before its first heartbeat; see its output with `ray logs`"
    logs = session_folder() / "logs"
    return "; ".join(_of(notice, logs) for notice in notices)


def _of(notice: ProcessRecord, logs: Path) -> str:
    pattern = f"worker-*-{notice.pid}.err"
    place = f"{notice.role} {notice.rank}"
    if notice.node != ray.get_runtime_context().get_node_id():
        return f"output of {place}: {logs / pattern} on node {notice.node[:8]}"
    for path in logs.glob(pattern):
        lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        # Ray marks the beginning and the end of each actor's output with lines that start with a colon.
        output = [line for line in lines if not line.startswith(":")]
        return f"output of {place}: {path}" + (f", which ends with: {output[-1].strip()}" if output else "")
    return f"output of {place}: {logs / pattern}, which no longer exists"
