"""What stands behind the HTTP routes: engines that answer and a scorer, reached through Ray Serve handles."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol

import grpc
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from serve.errors import ApiError
from serve.replies import EngineRequest, EngineState, Refusal, Reply

logger = logging.getLogger("ray.serve")

TRIES = 3  # engines that are asked, one after another, if one dies before it has said anything
RETRY_S = 1.0


class Backend(Protocol):
    """What the routes need. Every method raises ApiError where it cannot answer."""

    def answer(self, model: str, request: EngineRequest) -> AsyncGenerator[Reply, None]:
        """One engine's replies; closing the generator aborts the work."""
        ...

    async def score(self, conversations: list[list[dict[str, str]]], cut_off: list[bool]) -> dict[str, Any] | Refusal:
        """Scores of finished chats."""
        ...

    async def ready(self, timeout_s: float) -> dict[str, EngineState]:
        """An engine of each model; raises unless every model has one that answers in time."""
        ...


class ServeBackend:
    """Engines and scorer as deployments of Ray Serve."""

    def __init__(self, engines: Mapping[str, DeploymentHandle], scorer: DeploymentHandle | None) -> None:
        self._plain, self._scorer = dict(engines), scorer
        # Over gRPC, which every replica of Serve listens to, a stream's messages cost less than by Ray's own streams.
        # Ray's path knows of a death at once, and routes around it.
        self._by_grpc = {
            name: handle.options(
                stream=True, _by_reference=False, request_serialization="pickle", response_serialization="pickle"
            )
            for name, handle in engines.items()
        }
        self._by_ray = {name: handle.options(stream=True) for name, handle in engines.items()}

    async def answer(self, model: str, request: EngineRequest) -> AsyncGenerator[Reply, None]:
        """See `Backend`. A request whose engine dies before its first word goes to another one."""
        for attempt in range(1, TRIES + 1):
            spoken = False
            handle = (self._by_grpc if attempt == 1 else self._by_ray)[model]
            # Requests that begin alike go to the same engine, whose cache has their prefix.
            replies = handle.options(session_id=request.affinity).answer.remote(request)
            try:
                async for reply in replies:
                    spoken = True
                    yield reply
                return
            except (RayActorError, grpc.aio.AioRpcError) as error:
                logger.warning("engine of %s died under request %s (try %d)", model, request.request_id, attempt)
                if spoken or attempt == TRIES:
                    raise ApiError(
                        503, "The engine died while it answered: send the request again.", retry_after_s=1
                    ) from error
                await asyncio.sleep(RETRY_S)
            except (BackPressureError, DeploymentUnavailableError, RayTaskError) as error:
                raise _refusal(error) from error
            finally:
                replies.cancel()

    async def score(self, conversations: list[list[dict[str, str]]], cut_off: list[bool]) -> dict[str, Any] | Refusal:
        """See `Backend`."""
        assert self._scorer is not None
        try:
            return await self._scorer.score.remote(conversations, cut_off)
        except (RayActorError, BackPressureError, DeploymentUnavailableError, RayTaskError) as error:
            raise _refusal(error) from error

    async def ready(self, timeout_s: float) -> dict[str, EngineState]:
        """See `Backend`."""
        states = {}
        for model, handle in self._plain.items():
            try:
                states[model] = await asyncio.wait_for(handle.ready.remote(), timeout_s)
            except TimeoutError as error:
                raise ApiError(503, f"No engine of '{model}' answered in {timeout_s:g} s.", retry_after_s=5) from error
            except (RayActorError, BackPressureError, DeploymentUnavailableError, RayTaskError) as error:
                raise _refusal(error) from error
        return states


def _refusal(error: Exception) -> ApiError:
    if isinstance(error, BackPressureError):
        return ApiError(503, "All engines are busy and the queue is full: try again later.", retry_after_s=2)
    if isinstance(error, (DeploymentUnavailableError, RayActorError)):
        return ApiError(503, "No engine can be reached now: try again later.", retry_after_s=5)
    logger.error("an engine failed", exc_info=error)
    return ApiError(500, "The engine failed on this request; its log says why under the request id.")
