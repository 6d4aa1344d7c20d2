"""The cluster's process registry: each process of a run writes a record about itself, which `cluster.status` reads.

The registry is Ray's internal key-value store on the cluster's head. Each process sends one small message to the head
every few seconds; the registry needs neither an actor nor a shared file system. The last record of a process stays when
the process hangs or dies, and reading needs only the head, so a run can be inspected even if its driver does not
respond. A run that ends without an error removes its records; other records stay until the run is started again, or
for a day.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

DRIVER = "driver"
"""The role of the process that runs the algorithm; every run has one, with rank 0."""

NAMESPACE = "chimed"
_DAY_S = 86_400.0
_SECONDS_TO_ANSWER = 10.0


@dataclass
class Progress:
    """A run's progress, part of its driver's record.

    Attributes:
        stage: the stage's name, e.g. "ppo".
        step: number of steps done.
        steps: number of steps of the whole run; None until it is known.
    """

    stage: str
    state: str = "running"
    """`running`, or how the run ended."""
    step: int = 0
    steps: int | None = None
    step_at: float = field(default_factory=time.time)
    """Unix time of the end of the last step, in seconds; before the first step, of the run's start."""
    figures: dict[str, float] = field(default_factory=dict)
    """Metrics of the last step, by name."""


@dataclass
class ProcessRecord:
    """What one process of a run reports about itself.

    Attributes:
        pid: the process id on its node.
        resident_bytes: resident memory, in bytes.
        restarts: how many times the process was restarted.
        weights_version: version of the weights that the process holds; None if it holds none.
        progress: the run's progress, in the driver's record only.
    """

    run: str
    role: str
    rank: int
    pid: int
    node: str
    """Hexadecimal Ray node ID."""
    job: str
    """Hexadecimal Ray job ID."""
    actor: str = ""
    """Hexadecimal Ray actor ID; empty for the driver, which is not an actor."""
    at: float = 0.0
    """Unix time at which the record was written, in seconds."""
    resident_bytes: int = 0
    restarts: int = 0
    weights_version: int | None = None
    progress: Progress | None = None

    @classmethod
    def here(cls, run: str, role: str, rank: int) -> ProcessRecord:
        """Returns a record of this process, which must have joined the cluster."""
        import ray

        context = ray.get_runtime_context()
        return cls(
            run, role, rank, os.getpid(), context.get_node_id(), context.get_job_id(), context.get_actor_id() or ""
        )


def write_record(notice: ProcessRecord) -> None:
    """Writes this process's record to the registry, replacing the previous one.

    Raises:
        RayError: the head does not respond.
    """
    from ray.experimental.internal_kv import _internal_kv_put

    notice.at = time.time()
    key = f"{_prefix(notice.run)}{notice.role}/{notice.rank}"
    _internal_kv_put(key, json.dumps(asdict(notice)), namespace=NAMESPACE)


def read_record(run: str, role: str, rank: int) -> ProcessRecord | None:
    """Returns the last record of this role and rank; None if there is none."""
    from ray.experimental.internal_kv import _internal_kv_get

    text = _internal_kv_get(f"{_prefix(run)}{role}/{rank}", namespace=NAMESPACE)
    return parse(text) if text else None


def read_records(run: str, places: Sequence[tuple[str, int]]) -> list[ProcessRecord]:
    """Returns the last records of these roles and ranks; processes without a record are omitted.

    Args:
        run: the run's name.
        places: pairs of role and rank.

    Raises:
        RayError: the head does not respond.
    """
    from ray.experimental.internal_kv import internal_kv_get_gcs_client

    keys = [f"{_prefix(run)}{role}/{rank}".encode() for role, rank in places]
    found = internal_kv_get_gcs_client().internal_kv_multi_get(keys, NAMESPACE.encode(), timeout=_SECONDS_TO_ANSWER)
    return [parse(text) for text in found.values()]


def unregister_run(run: str) -> None:
    """Removes all records of a run."""
    from ray.experimental.internal_kv import _internal_kv_del

    _internal_kv_del(_prefix(run), del_by_prefix=True, namespace=NAMESPACE)


def tidy() -> None:
    """Removes the records of runs whose newest record is more than a day old."""
    from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_list

    keys = _internal_kv_list("", namespace=NAMESPACE)
    notices = [parse(text) for key in keys if (text := _internal_kv_get(key, namespace=NAMESPACE))]
    heard = {notice.run: 0.0 for notice in notices}
    for notice in notices:
        heard[notice.run] = max(heard[notice.run], notice.at)
    for run, at in heard.items():
        if at < time.time() - _DAY_S:
            unregister_run(run)


def parse(text: bytes) -> ProcessRecord:
    """Parses a record from its JSON in the registry."""
    values: Mapping[str, object] = json.loads(text)
    progress = values["progress"]
    return ProcessRecord(**{**values, "progress": Progress(**progress) if isinstance(progress, dict) else None})  # type: ignore[arg-type]


def _prefix(run: str) -> str:
    return f"{run}|"
