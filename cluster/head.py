"""Queries the head of a Ray cluster directly, with a timeout.

The head's gRPC service (GCS, at the port in RAY_ADDRESS) responds to any machine that can reach it. The client does not
need a Ray node; it does not need `ray.init`, which would register it as a job of the cluster; and it does not need the
dashboard, which `ray.util.state` requires and not every cluster has. The messages are those of the pinned Ray version.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import grpc

from cluster.liveness.registry import NAMESPACE, ProcessRecord, parse
from cluster.ray_internals import (
    AUTOSCALER_CONFIG_KEY,
    AUTOSCALER_SPACE,
    autoscaler_pb2,
    autoscaler_pb2_grpc,
    create_gcs_channel,
    gcs_pb2,
    gcs_service_pb2,
    gcs_service_pb2_grpc,
)
from configs.errors import RunError

_SECONDS_TO_ANSWER = 10.0


class HeadError(RunError):
    """Raised if the head rejects a query or does not respond in time."""


class Head:
    """A connection to a cluster's head. Use it as a context manager, or call `close` at the end.

    All queries raise HeadError if the head rejects them or does not respond in time.

    Args:
        address: HOST:PORT of the head, checked by `cluster.join.require_ray_at`.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._channel = create_gcs_channel(address)
        self._actors = gcs_service_pb2_grpc.ActorInfoGcsServiceStub(self._channel)
        self._autoscaler = autoscaler_pb2_grpc.AutoscalerStateServiceStub(self._channel)
        self._groups = gcs_service_pb2_grpc.PlacementGroupInfoGcsServiceStub(self._channel)
        self._jobs = gcs_service_pb2_grpc.JobInfoGcsServiceStub(self._channel)
        self._values = gcs_service_pb2_grpc.InternalKVGcsServiceStub(self._channel)

    def resources(self) -> autoscaler_pb2.GetClusterStatusReply:
        """Returns the nodes with their total and free resources, the unmet demand, and the autoscaler's state."""
        return self._ask(self._autoscaler.GetClusterStatus, autoscaler_pb2.GetClusterStatusRequest())

    def groups(self) -> list[gcs_pb2.PlacementGroupTableData]:
        """Returns all placement groups, including recently removed ones."""
        answer = self._ask(self._groups.GetAllPlacementGroup, gcs_service_pb2.GetAllPlacementGroupRequest())
        return list(answer.placement_group_table_data)

    def jobs(self) -> list[gcs_pb2.JobTableData]:
        """Returns all jobs, including finished ones."""
        request = gcs_service_pb2.GetAllJobInfoRequest(
            skip_submission_job_info_field=True, skip_is_running_tasks_field=True
        )
        return list(self._ask(self._jobs.GetAllJobInfo, request).job_info_list)

    def actors(self, job: str) -> list[gcs_pb2.ActorTableData]:
        """Returns the actors of a job, including dead ones.

        Args:
            job: the hexadecimal Ray job ID.
        """
        filters = gcs_service_pb2.GetAllActorInfoRequest.Filters(job_id=bytes.fromhex(job))
        request = gcs_service_pb2.GetAllActorInfoRequest(show_dead_jobs=True, filters=filters)
        return list(self._ask(self._actors.GetAllActorInfo, request).actor_table_data)

    def notices(self) -> list[ProcessRecord]:
        """Returns all records of the process registry (`cluster/liveness/registry.py`)."""
        space = NAMESPACE.encode()
        keys = self._ask(self._values.InternalKVKeys, gcs_service_pb2.InternalKVKeysRequest(namespace=space)).results
        request = gcs_service_pb2.InternalKVMultiGetRequest(keys=keys, namespace=space)
        found = self._ask(self._values.InternalKVMultiGet, request).results if keys else []
        return [parse(entry.value) for entry in found]

    def value(self, namespace: str, key: str) -> bytes | None:
        """Returns a value of the cluster's key-value store; None if the key is not set."""
        request = gcs_service_pb2.InternalKVMultiGetRequest(namespace=namespace.encode(), keys=[key.encode()])
        found = self._ask(self._values.InternalKVMultiGet, request).results
        return found[0].value if found else None

    def set_value(self, namespace: str, key: str, value: bytes) -> None:
        """Writes a value to the cluster's key-value store."""
        request = gcs_service_pb2.InternalKVPutRequest(
            namespace=namespace.encode(), key=key.encode(), value=value, overwrite=True
        )
        self._ask(self._values.InternalKVPut, request)

    def limits(self) -> autoscaler_pb2.ClusterConfig | None:
        """Returns the node types that the autoscaler may add, with their limits.

        Returns None if the autoscaler does not report them, as under KubeRay.
        """
        found = self.value(AUTOSCALER_SPACE, AUTOSCALER_CONFIG_KEY)
        return autoscaler_pb2.ClusterConfig.FromString(found) if found else None

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def _ask(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=_SECONDS_TO_ANSWER)
        except grpc.RpcError as error:
            raise HeadError(
                f"the head of the Ray cluster at {self.address} does not respond: {error.details()}"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
