"""Which deaths of an engine are retried, with handles that are fakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from ray.core.generated.common_pb2 import ActorDeathCause, ActorDiedErrorContext, OomContext
from ray.exceptions import ActorUnavailableError, OutOfMemoryError

from serve.errors import ApiError
from serve.gateway import backend as module
from serve.gateway.backend import ServeBackend
from serve.replies import EngineRequest, Part, Reply, Whole

DIED = ActorUnavailableError("gone", b"a" * 16)


class Replies:
    """Replies of one try; an exception among them is raised."""

    def __init__(self, replies: list[Reply | Exception]) -> None:
        self._replies, self.cancelled = replies, False

    async def __aiter__(self) -> AsyncIterator[Reply]:
        for reply in self._replies:
            if isinstance(reply, Exception):
                raise reply
            yield reply

    def cancel(self) -> None:
        self.cancelled = True


class Handle:
    """A deployment's handle: one of `tries` for each request, in order."""

    def __init__(self, tries: list[list[Reply | Exception]]) -> None:
        self.tries = [Replies(replies) for replies in tries]
        self.asked: list[EngineRequest] = []

    def options(self, **_: Any) -> Handle:
        return self

    @property
    def answer(self) -> Handle:
        return self

    def remote(self, request: EngineRequest) -> Replies:
        self.asked.append(request)
        return self.tries[len(self.asked) - 1]


def cause(reason: Any) -> ActorDeathCause:
    return ActorDeathCause(actor_died_error_context=ActorDiedErrorContext(reason=reason))


CRASHED, STOPPED = cause(ActorDiedErrorContext.WORKER_DIED), cause(ActorDiedErrorContext.RAY_KILL)


def run(handle: Handle, monkeypatch: pytest.MonkeyPatch, death: ActorDeathCause, state: str = "DEAD") -> list[Reply]:
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    monkeypatch.setattr(module, "DEATH_KNOWN_S", 0.1)
    monkeypatch.setattr(module, "actors", lambda actor_id: {"State": state, "DeathCause": death})

    async def collect() -> list[Reply]:
        answer = ServeBackend({"m": handle}, None).answer("m", EngineRequest("completions", {"prompt": "头痛"}, "r"))
        return [reply async for reply in answer]

    return asyncio.run(collect())


def request_of(handle: Handle) -> set[str]:
    return {request.request_id for request in handle.asked}


def test_a_request_whose_engine_crashed_goes_to_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = Handle([[Part("", 5, 3), DIED], [Whole("{}", 5, 9)]])
    assert run(handle, monkeypatch, CRASHED) == [Part("", 5, 3), Whole("{}", 5, 9)]
    assert all(replies.cancelled for replies in handle.tries)


@pytest.mark.parametrize(
    ("error", "death"), [(DIED, ActorDeathCause(oom_context=OomContext())), (OutOfMemoryError("killed"), STOPPED)]
)
def test_an_engine_that_ran_out_of_memory_has_crashed(
    error: Exception, death: ActorDeathCause, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = Handle([[error], [Whole("{}", 5, 9)]])
    assert run(handle, monkeypatch, death) == [Whole("{}", 5, 9)]


@pytest.mark.parametrize("state", ["DEAD", "ALIVE", "RESTARTING"])
@pytest.mark.parametrize("death", [STOPPED, cause(ActorDiedErrorContext.OUT_OF_SCOPE), ActorDeathCause()])
def test_a_request_whose_engine_was_stopped_is_not_replayed(
    death: ActorDeathCause, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = Handle([[DIED], [Whole("{}", 5, 9)]])
    with pytest.raises(ApiError, match=r"The engine died during the response: send the request again") as refused:
        run(handle, monkeypatch, death, state)
    assert (refused.value.status, len(handle.asked)) == (503, 1)


def test_an_engine_that_may_still_be_there_is_not_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = Handle([[DIED], [Whole("{}", 5, 9)]])
    with pytest.raises(ApiError):
        run(handle, monkeypatch, CRASHED, "ALIVE")
    assert len(handle.asked) == 1


def test_a_request_that_kills_two_engines_meets_no_third(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = Handle([[DIED], [DIED], [Whole("{}", 5, 9)]])
    with pytest.raises(ApiError):
        run(handle, monkeypatch, CRASHED)
    assert len(handle.asked) == 2


def test_a_stream_that_has_begun_is_not_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = Handle([[Part("data: 1\n\n", 5, 1), DIED], [Whole("{}", 5, 9)]])
    with pytest.raises(ApiError):
        run(handle, monkeypatch, CRASHED)
    assert len(handle.asked) == 1


def test_the_same_id_of_two_requests_is_not_the_same_to_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    handles = [Handle([[Whole("{}", 5, 9)]]) for _ in range(2)]
    for handle in handles:
        run(handle, monkeypatch, CRASHED)
    first, second = (request_of(handle) for handle in handles)
    assert first != second
    assert all(name.startswith("r-") for name in first | second)
