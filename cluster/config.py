"""Settings of the Ray cluster that a stage runs on. Importing this module does not import ray."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from configs.base import Section


class ClusterConfig(Section):
    """The Ray cluster of a stage: the one at RAY_ADDRESS, or else a local cluster that lasts as long as the run."""

    num_cpus: int | None = Field(None, ge=1, description="CPUs of a cluster of its own; the machine's if not given")
    num_gpus: int | None = Field(None, ge=0, description="GPUs of a cluster of its own; the machine's if not given")
    dashboard: bool = Field(False, description="start Ray's dashboard with a cluster of its own")
    object_store_bytes: int = Field(
        512 * 2**20, ge=80 * 2**20, description="object store of a cluster of its own, bytes"
    )
    log_to_driver: bool = Field(False, description="copy what the workers print to the driver's terminal")
    insecure: bool = Field(
        False, description="join a cluster that other machines reach without a token; --insecure says the same"
    )
    start_timeout_s: float = Field(60.0, gt=0, description="longest wait for a stage's processes to be placed, seconds")
    collective_timeout_s: float = Field(
        600.0, gt=0, description="longest wait inside a torch.distributed call, seconds"
    )
    host_timeout_s: float = Field(
        7200.0,
        gt=0,
        description="longest wait of a rank for another rank's work on its host, such as evaluating, redistributing a "
        "checkpoint, or writing the model; seconds. In supervised stages: roles of RLHF wait 7,200 s",
    )
    hang_timeout_s: float = Field(
        60.0, ge=10, description="seconds without a heartbeat after which a role's process counts as dead"
    )

    def connection(self) -> dict[str, Any]:
        """Returns the keyword arguments for `cluster.connect.connect`."""
        return self.model_dump(
            include={"num_cpus", "num_gpus", "dashboard", "object_store_bytes", "log_to_driver", "insecure"}
        )
