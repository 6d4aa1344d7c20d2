"""The engine deployment: Ray Serve LLM's server around vLLM, called with plain data, with replaceable weights.

This module and `serve.engines.in_process` are the only ones that import Ray Serve LLM and, through it, vLLM, so the
gateway stays small and starts fast.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import cached_property
from typing import Any

from pydantic import ValidationError
from ray.llm._internal.serve.core.configs import openai_api_models as api
from ray.llm._internal.serve.core.protocol import RawRequestInfo
from ray.serve.llm.deployment import LLMServer
from vllm.exceptions import GenerationError

from actors.model_folder.folders import ModelFolder
from actors.model_folder.source import model_dir
from configs.errors import first_line
from serve.engines.coalesce import coalesce
from serve.engines.failures import abandoned, is_error
from serve.engines.in_process import InProcessVllm, ResponsesCall
from serve.engines.progress import Progress, id_of, reporting
from serve.engines.tokens import Tokens
from serve.fair import FairQueue
from serve.keys import Key
from serve.replica import OnNodeAddress
from serve.replies import EngineRequest, EngineState, Part, Refusal, Reply, Whole

logger = logging.getLogger("ray.serve")

# Each part of a stream passes through two processes, so parts hold more tokens the more requests are unfinished. With
# fewer than 2 * PARTS_A_STEP requests, every token is sent on its own.
PARTS_A_STEP, MOST_TOKENS_A_PART = 4, 16

_LENGTHS = ("input_tokens", "input_text", "max_tokens", "max_completion_tokens")

_USAGE = (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))

_REQUESTS: Mapping[str, Any] = {
    "chat": api.ChatCompletionRequest,
    "completions": api.CompletionRequest,
    "messages": api.ChatCompletionRequest,
    "responses": ResponsesCall,
}


class Engine(OnNodeAddress, LLMServer):
    """One vLLM engine. The gateway calls `answer`; `reconfigure` loads newer weights."""

    _default_engine_cls = InProcessVllm
    _key_share = 1.0  # sent by the gateway with each request, because keys can change
    _weights = ""  # folder of the loaded weights; empty for the weights that the engine started with

    async def answer(self, request: EngineRequest) -> AsyncGenerator[Reply, None]:
        """Yields one `Whole` or `Refusal`, or for a stream `Part`s. Parts without events only hold token counts."""
        if request.kind in ("tokenize", "detokenize"):
            # In a thread, so that it does not block the event loop, which runs all streams and the health check.
            yield await asyncio.get_running_loop().run_in_executor(self._tokenizing, self._tokens.answer, request)
            return
        assert self.engine is not None
        progress = Progress(self.engine._engine_client.output_processor, request)
        share = request.share
        self._key_share = share.most
        # The gateway's fair queue spans all engines of the model. This queue keeps a single engine fair, because
        # requests with the same prefix are all routed to it.
        async with (
            self._queue.slots(Key(share.key, weight=share.weight), share.sequences),
            aclosing(reporting(self._generate(request), progress.counts)) as replies,
        ):
            async for reply in replies:
                yield reply

    async def _generate(self, request: EngineRequest) -> AsyncGenerator[Reply, None]:
        try:
            call = _REQUESTS[request.kind](
                **{
                    **request.body,
                    "request_id": id_of(request),  # Ray Serve LLM uses this instead of the header
                    "stop_token_ids": self._stops(request),
                    "stream_interval": self._tokens_a_part,
                }
            )
        except ValueError as error:
            yield Refusal(400, first_line(error))
            return
        headers = RawRequestInfo(headers={"x-request-id": request.request_id})
        replies = getattr(self.engine, request.kind)(call, headers)
        try:
            if request.body.get("stream"):
                async with aclosing(coalesce(replies, self._interval_s)) as batches:
                    async for batch in batches:
                        refused = isinstance(batch[0], api.ErrorResponse)
                        yield await self._refused(batch[0], request) if refused else _part(batch, request.wants_usage)
                        if any(is_error(event) for event in batch if isinstance(event, str)):
                            yield abandoned(request)
                            return
            else:
                async with aclosing(replies):
                    async for reply in replies:
                        refused = isinstance(reply, api.ErrorResponse)
                        yield await self._refused(reply, request) if refused else _whole(reply)
        except (GenerationError, ValidationError) as error:  # vLLM raises the latter if its event reports the former
            logger.warning("request %s failed in the engine: %s", request.request_id, error)
            yield abandoned(request)

    @cached_property
    def _queue(self) -> FairQueue:
        slots = self._llm_config.engine_kwargs["max_num_seqs"]
        return FairQueue(slots, sys.maxsize, lambda: self._key_share)  # the gateway limits how many requests wait

    @cached_property
    def _tokenizing(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenize")

    @property
    def _unfinished(self) -> int:
        assert self.engine is not None
        count: int = self.engine._engine_client.output_processor.get_num_unfinished_requests()
        return count

    @property
    def _tokens_a_part(self) -> int:
        return max(1, min(MOST_TOKENS_A_PART, self._unfinished // PARTS_A_STEP))

    @property
    def _interval_s(self) -> float:
        return float(self._llm_config.experimental_configs["stream_batching_interval_ms"]) / 1000

    @cached_property
    def _folder(self) -> ModelFolder:
        return ModelFolder(self._llm_config.model_loading_config.model_source)

    @cached_property
    def _tokens(self) -> Tokens:
        return Tokens(self._folder, self._llm_config.engine_kwargs["max_model_len"])

    def _stops(self, request: EngineRequest) -> list[int]:
        """Returns the stop token ids: the request's, and the model's except the tokenizer's EOS, which vLLM adds."""
        asked: list[int] = request.body.get("stop_token_ids", [])
        if request.body.get("ignore_eos"):
            return asked
        return [*asked, *(end for end in self._folder.end_ids if end != self._folder.tokenizer.eos_token_id)]

    async def _refused(self, error: Any, request: EngineRequest) -> Refusal:
        # In a thread, because a prompt that is too long is tokenized again to report its length.
        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, self._refusal, error, request)

    def _refusal(self, error: Any, request: EngineRequest) -> Refusal:
        info = error.error
        if info.param in _LENGTHS and request.kind != "responses":  # vLLM stops counting at the first excess token
            return self._tokens.too_long(request)
        status = info.code if isinstance(info.code, int) and 400 <= info.code < 600 else 500
        return Refusal(status, info.message.partition(" (parameter=")[0], info.param)

    async def ready(self) -> EngineState:
        """Returns this engine's state. Raises an exception if the engine is dead."""
        await self.check_health()
        return EngineState(self._weights, self._unfinished)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Loads weights from the folder `user_config["weights"]`, after running requests finish with the old ones."""
        folder = user_config.get("weights") or ""
        if folder == self._weights or self.engine is None:
            return
        source = folder or self._llm_config.model_loading_config.model_source
        logger.info("loading weights of %s", source)
        await self.pause(mode="wait")
        try:
            await self.collective_rpc("reload_folder", kwargs={"path": str(model_dir(source))})
            await self.reset_prefix_cache()
            self._weights = folder
        finally:
            await self.resume()


def _whole(reply: Any) -> Whole:
    whole = reply.model_dump(mode="json", by_alias=True)
    return Whole(json.dumps(whole, ensure_ascii=False), *_counts(whole.get("usage")))


def _counts(usage: Mapping[str, Any] | None) -> tuple[int, int]:
    """Returns the prompt and response tokens of `usage`, under the names of either API."""
    given = usage or {}
    prompt, answer = (given.get(one) or given.get(other) or 0 for one, other in _USAGE)
    return prompt, answer


def _part(events: list[str], wants_usage: bool) -> Part:
    """Joins server-sent events that arrived together; drops the usage event unless the client asked for it."""
    kept, prompt, answer = [], 0, 0
    for event in events:
        if is_error(event):
            break  # the endpoint's own error message follows
        # vLLM's usage event is the only one without choices.
        if '"choices":[]' in event and '"usage":{' in event:
            prompt, answer = _counts(json.loads(event.removeprefix("data: "))["usage"])
            if not wants_usage:
                continue
        kept.append(event)
    return Part("".join(kept), prompt, answer)
