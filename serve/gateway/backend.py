"""The backend of the HTTP routes: engines and a scorer, called through Ray Serve handles."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any, Protocol

import grpc
import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from cluster.ray_internals import ActorDiedErrorContext, actors
from serve.errors import ApiError
from serve.gateway.metrics import exposition
from serve.replies import EngineRequest, EngineState, Part, Refusal, Reply

logger = logging.getLogger("ray.serve")

TRIES = 2  # engines to which a request is sent, one after another, if the first dies before its first event
RETRY_S = 0.5
UNREACHABLE = (RayActorError, OutOfMemoryError, BackPressureError, DeploymentUnavailableError, RayTaskError)
DEATH_KNOWN_S = 10.0  # after an actor's death, how long the Ray head may take to record its cause


class Backend(Protocol):
    """The interface that the routes call. Every method raises ApiError on failure."""

    def answer(self, model: str, request: EngineRequest) -> AsyncGenerator[Reply, None]:
        """Yields one engine's replies. Closing the generator aborts the request."""
        ...

    async def score(self, conversations: list[list[dict[str, str]]], cut_off: list[bool]) -> dict[str, Any] | Refusal:
        """Scores conversations with the reward model; see `serve.engines.score.Scorer.score`."""
        ...

    async def ready(self, timeout_s: float) -> dict[str, EngineState]:
        """Returns the state of one engine of each model; raises unless all respond within `timeout_s` seconds."""
        ...

    async def metrics(self) -> str:
        """Returns the metrics of the endpoint's processes in Prometheus text format."""
        ...


class ServeBackend:
    """Engines and scorer that are Ray Serve deployments."""

    def __init__(self, engines: Mapping[str, DeploymentHandle], scorer: DeploymentHandle | None) -> None:
        self._plain, self._scorer = dict(engines), scorer
        # Every Serve replica has a gRPC server, and streaming over it is cheaper than over Ray's streaming generators.
        # Ray's path detects a dead replica immediately and routes around it, so the second try uses it.
        self._by_grpc = {
            name: handle.options(
                stream=True, _by_reference=False, request_serialization="pickle", response_serialization="pickle"
            )
            for name, handle in engines.items()
        }
        self._by_ray = {name: handle.options(stream=True) for name, handle in engines.items()}

    async def answer(self, model: str, request: EngineRequest) -> AsyncGenerator[Reply, None]:
        """Yields one engine's replies; if the engine dies before its first event, retries the request on another one.

        The request is not retried if Serve stopped the engine, e.g. after failed health checks, because the request may
        have caused the failure.

        Raises ApiError.
        """
        # Clients may reuse a request id; the engine needs unique ones.
        request = replace(request, request_id=f"{request.request_id}-{secrets.token_hex(4)}")
        for attempt in range(1, TRIES + 1):
            spoken = False
            handle = (self._by_grpc if attempt == 1 else self._by_ray)[model]
            # Requests with the same prefix go to the same engine, whose prefix cache holds it.
            replies = handle.options(session_id=request.affinity).answer.remote(request)
            try:
                async for reply in replies:
                    spoken = spoken or not isinstance(reply, Part) or bool(reply.events)
                    yield reply
                return
            except (RayActorError, OutOfMemoryError, grpc.aio.AioRpcError) as error:
                logger.warning("engine of %s died during request %s (attempt %d)", model, request.request_id, attempt)
                if spoken or attempt == TRIES:
                    raise _died() from error
                if not await _died_by_itself(error):
                    raise _died() from error
            except (BackPressureError, DeploymentUnavailableError, RayTaskError) as error:
                raise _refusal(error) from error
            finally:
                replies.cancel()

    async def score(self, conversations: list[list[dict[str, str]]], cut_off: list[bool]) -> dict[str, Any] | Refusal:
        """Implements `Backend.score`. Raises ApiError."""
        assert self._scorer is not None
        try:
            return await self._scorer.score.remote(conversations, cut_off)
        except UNREACHABLE as error:
            raise _refusal(error) from error

    async def ready(self, timeout_s: float) -> dict[str, EngineState]:
        """Implements `Backend.ready`. Raises ApiError."""
        states = {}
        for model, handle in self._plain.items():
            try:
                async with asyncio.timeout(timeout_s):
                    states[model] = await handle.ready.remote()
            except TimeoutError as error:
                raise ApiError(
                    503, f"No engine of '{model}' responded within {timeout_s:g} s: try again later.", retry_after_s=5
                ) from error
            except UNREACHABLE as error:
                raise _refusal(error) from error
        return states

    async def metrics(self) -> str:
        """Implements `Backend.metrics`."""
        alive = [node for node in await asyncio.to_thread(ray.nodes) if node["Alive"]]
        ports = {node["NodeID"]: f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}" for node in alive}
        return await exposition(ports)


async def _died_by_itself(error: Exception) -> bool:
    """Returns whether the replica that `error` refers to crashed, rather than being stopped by Serve.

    Causes are a crashed or killed worker, a lost node, or an out-of-memory kill. Waits up to `DEATH_KNOWN_S` seconds
    until Ray reports the cause, and returns False if it does not.
    """
    if isinstance(error, OutOfMemoryError):
        return True
    actor_id = getattr(error, "actor_id", None)
    if actor_id is None:
        return False
    deadline = time.monotonic() + DEATH_KNOWN_S
    while time.monotonic() < deadline:
        await asyncio.sleep(RETRY_S)
        row = await asyncio.to_thread(actors, actor_id)
        if row and row["State"] == "DEAD":
            cause = row["DeathCause"]
            reason = cause.actor_died_error_context.reason
            ended = reason in (ActorDiedErrorContext.WORKER_DIED, ActorDiedErrorContext.NODE_DIED)
            return bool(ended or cause.HasField("oom_context"))
    return False


def _died() -> ApiError:
    return ApiError(503, "The engine died during the response: send the request again.", retry_after_s=1)


def _refusal(error: Exception) -> ApiError:
    if isinstance(error, BackPressureError):
        return ApiError(503, "All engines are busy and the queue is full: try again later.", retry_after_s=2)
    if isinstance(error, (DeploymentUnavailableError, RayActorError, OutOfMemoryError)):
        return ApiError(503, "No engine is available: try again later.", retry_after_s=5)
    logger.error("an engine failed", exc_info=error)
    return ApiError(500, "The engine failed on this request; see the endpoint's log for the request id.")
