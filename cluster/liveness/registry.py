"""The cluster's notice board: each process of a run says there who it is and how far it is, and `cluster.status` reads.

The board is Ray's internal key-value store, which the cluster's head keeps. A notice is one small message to the head
every few seconds; nothing runs for it: no actor, no file system that all must share. What was said last stays when the
process that said it hangs or dies, and reading needs the head alone, so a driver that answers nobody can still be
looked at. A run that ends well takes its notices down; the others stay until the run is started again, or for a day.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

DRIVER = "driver"
"""The role of the process that runs the algorithm; every run has one, of rank 0."""

NAMESPACE = "chimed"
_DAY_S = 86_400.0
_SECONDS_TO_ANSWER = 10.0


@dataclass
class Progress:
    """How far a run is; its driver's notice has it."""

    stage: str
    state: str = "running"
    """`running`, or how it ended."""
    step: int = 0
    steps: int | None = None
    step_at: float = field(default_factory=time.time)
    """When the last step was done, Unix time; before the first, the start."""
    figures: dict[str, float] = field(default_factory=dict)
    """What was logged of the last step."""


@dataclass
class ProcessRecord:
    """What one process of a run says of itself."""

    run: str
    role: str
    rank: int
    pid: int
    node: str
    """Ray's id of the node, hex."""
    job: str
    """Ray's id of the job, hex."""
    actor: str = ""
    """Ray's id of the actor, hex; the driver is none."""
    at: float = 0.0
    """When it was said, Unix time."""
    resident_bytes: int = 0
    restarts: int = 0
    weights_version: int | None = None
    progress: Progress | None = None

    @classmethod
    def here(cls, run: str, role: str, rank: int) -> ProcessRecord:
        """A notice of this process, which has joined the cluster."""
        import ray

        context = ray.get_runtime_context()
        return cls(
            run, role, rank, os.getpid(), context.get_node_id(), context.get_job_id(), context.get_actor_id() or ""
        )


def put_up(notice: ProcessRecord) -> None:
    """Replaces what this process said before. Raises RayError when the head does not answer."""
    from ray.experimental.internal_kv import _internal_kv_put

    notice.at = time.time()
    key = f"{_prefix(notice.run)}{notice.role}/{notice.rank}"
    _internal_kv_put(key, json.dumps(asdict(notice)), namespace=NAMESPACE)


def last_of(run: str, role: str, rank: int) -> ProcessRecord | None:
    """What the process in this place said last, if any did."""
    from ray.experimental.internal_kv import _internal_kv_get

    text = _internal_kv_get(f"{_prefix(run)}{role}/{rank}", namespace=NAMESPACE)
    return parse(text) if text else None


def said(run: str, places: Sequence[tuple[str, int]]) -> list[ProcessRecord]:
    """What the processes in these places, role and rank, said last. Raises RayError when the head does not answer."""
    from ray.experimental.internal_kv import internal_kv_get_gcs_client

    keys = [f"{_prefix(run)}{role}/{rank}".encode() for role, rank in places]
    found = internal_kv_get_gcs_client().internal_kv_multi_get(keys, NAMESPACE.encode(), timeout=_SECONDS_TO_ANSWER)
    return [parse(text) for text in found.values()]


def take_down(run: str) -> None:
    """Removes all notices of a run."""
    from ray.experimental.internal_kv import _internal_kv_del

    _internal_kv_del(_prefix(run), del_by_prefix=True, namespace=NAMESPACE)


def tidy() -> None:
    """Removes the notices of runs from which nothing was heard for a day."""
    from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_list

    keys = _internal_kv_list("", namespace=NAMESPACE)
    notices = [parse(text) for key in keys if (text := _internal_kv_get(key, namespace=NAMESPACE))]
    heard = {notice.run: 0.0 for notice in notices}
    for notice in notices:
        heard[notice.run] = max(heard[notice.run], notice.at)
    for run, at in heard.items():
        if at < time.time() - _DAY_S:
            take_down(run)


def parse(text: bytes) -> ProcessRecord:
    """A notice as the board has it."""
    values: Mapping[str, object] = json.loads(text)
    progress = values["progress"]
    return ProcessRecord(**{**values, "progress": Progress(**progress) if isinstance(progress, dict) else None})  # type: ignore[arg-type]


def _prefix(run: str) -> str:
    return f"{run}|"
