"""Settings of the Ray cluster that a stage runs on. Importing this module does not import ray."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from configs.base import Section


class ClusterConfig(Section):
    """The Ray cluster of a stage: the one at RAY_ADDRESS, or else a local cluster that lasts as long as the run."""

    num_cpus: int | None = Field(None, ge=1, description="CPUs of a local cluster; null for all of the machine's")
    num_gpus: int | None = Field(None, ge=0, description="GPUs of a local cluster; null for all of the machine's")
    dashboard: bool = Field(False, description="start Ray's dashboard with a local cluster")
    object_store_bytes: int = Field(
        512 * 2**20, ge=80 * 2**20, description="object store memory of a local cluster, bytes"
    )
    log_to_driver: bool = Field(False, description="print the workers' output in the driver's terminal")
    insecure: bool = Field(
        False, description="join a cluster that other machines can reach without a token; same as --insecure"
    )
    start_timeout_s: float = Field(
        60.0, gt=0, description="timeout for placing a stage's processes on the cluster, seconds"
    )
    collective_timeout_s: float = Field(600.0, gt=0, description="timeout of a torch.distributed call, seconds")
    host_timeout_s: float = Field(
        7200.0,
        gt=0,
        description="timeout for a rank that waits for another rank's host work, such as evaluation, checkpoint "
        "resharding, or model export, seconds; supervised stages only: in RLHF the timeout is 7,200 s",
    )
    hang_timeout_s: float = Field(
        60.0, ge=10, description="seconds without a heartbeat after which a role's process is considered dead"
    )

    def connection(self) -> dict[str, Any]:
        """Returns the keyword arguments for `cluster.connect.connect`."""
        return self.model_dump(
            include={"num_cpus", "num_gpus", "dashboard", "object_store_bytes", "log_to_driver", "insecure"}
        )
