"""A cluster of two Ray nodes on this machine, into which faults can be injected."""

from __future__ import annotations

import os
import secrets
import signal
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import psutil

from configs.errors import RunError

# Ray notices a killed raylet within seconds instead of its default of 15 s, but tolerates delays of a busy machine.
_HEALTH = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "3",
}
_NODE = {"num_cpus": 4, "object_store_memory": 80 * 2**20}
PATIENCE_S = 30.0
DRAIN_S = 120.0  # notice period of spot instances


class TwoNodes:
    """The cluster, as a context manager. All processes that it starts end with it."""

    def __init__(self) -> None:
        # The nodes use the machine's external address and therefore require a token, which child processes inherit.
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        os.environ.update({**token, "OMP_NUM_THREADS": "1", **_HEALTH})
        from ray.cluster_utils import Cluster

        from cluster.ray_internals import reread_token_mode

        reread_token_mode()

        self._cluster = Cluster(initialize_head=True, head_node_args={**_NODE, "include_dashboard": False})
        self.address: str = self._cluster.address
        self._second = self._add()

    def _add(self) -> Any:
        return self._cluster.add_node(**_NODE)

    def kill_raylet(self) -> None:
        """Sends SIGKILL to the second node's raylet, then replaces the node, as an autoscaler would."""
        (raylet,) = self._second.all_processes["raylet"]
        os.kill(raylet.process.pid, signal.SIGKILL)
        raylet.process.wait(PATIENCE_S)
        self.replace_second()

    def drain(self) -> None:
        """Starts draining the second node, as Ray's autoscaler does when a spot instance is preempted.

        Raises:
            RunError: Ray rejected the request.
        """
        from cluster.ray_internals import autoscaler_pb2, drain_node

        preemption = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        deadline_ms = int((time.time() + DRAIN_S) * 1000)
        accepted, refusal = drain_node(self.address, self._second.node_id, preemption, "spot instance", deadline_ms)
        if not accepted:
            raise RunError(f"Ray does not drain node {self._second.node_id}: {refusal}")

    def replace_second(self) -> None:
        """Adds a new second node, as an autoscaler would, and kills the processes of the previous one."""
        gone, self._second = self._second, self._add()
        gone.kill_all_processes(check_alive=False, allow_graceful=False)

    def inject(self, run: str, role: str, rank: int, fault: signal.Signals) -> bool:
        """Sends the signal `fault` to the process of `run` with this role and rank; returns False if there is none."""
        from cluster.head import Head

        with Head(self.address) as head:
            pids = [n.pid for n in head.notices() if (n.run, n.role, n.rank) == (run, role, rank)]
        with suppress(psutil.NoSuchProcess):
            for pid in pids:
                if psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED):
                    os.kill(pid, fault)
                    return True
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cluster.shutdown()
