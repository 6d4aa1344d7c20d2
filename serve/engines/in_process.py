"""Ray Serve LLM's vLLM engine, extended with an in-process worker, the Anthropic API, and the Responses API.

This module and `serve.engines.deployment` are the only ones that import Ray Serve LLM and, through it, vLLM.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

from pydantic import ConfigDict, Field
from ray.llm._internal.serve.core.configs import openai_api_models as api
from ray.llm._internal.serve.core.protocol import RawRequestInfo
from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.exceptions import VLLMClientError
from vllm.platforms import current_platform
from vllm.sampling_params import SamplingParams

from serve.engines.tool_use import name_streamed_tool_use, name_tool_use


class ResponsesCall(ResponsesRequest):
    """vLLM's Responses request, with the model's end-of-turn tokens in addition to the tokenizer's EOS."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    stop_token_ids: list[int] = Field([])

    def to_sampling_params(self, *given: Any, **named: Any) -> SamplingParams:
        """Returns vLLM's sampling parameters with `stop_token_ids` added."""
        params = super().to_sampling_params(*given, **named)
        params.stop_token_ids = [*(params.stop_token_ids or []), *self.stop_token_ids]
        params._all_stop_token_ids.update(self.stop_token_ids)
        return params


class InProcessVllm(VLLMEngine):
    """A vLLM engine that, on CPUs, runs its single worker in the scheduler's process: a separate one is 20x slower.

    On GPUs it keeps Ray's executor, which places the worker on the reserved GPU; the scheduler's process has no GPU.
    """

    def _prepare_engine_config(self, callback_ctx: Any) -> Any:
        engine_args, frontend_args, config = super()._prepare_engine_config(callback_ctx)
        if current_platform.is_cpu() and config.parallel_config.world_size == 1:
            config.parallel_config.distributed_executor_backend = "uni"
            engine_args.distributed_executor_backend = "uni"
        return engine_args, frontend_args, config

    async def messages(self, call: Any, info: RawRequestInfo) -> AsyncGenerator[Any, None]:
        """Runs a Messages request that has been converted to an OpenAI chat; yields events, a message, or an error."""
        handler = self._app_state.anthropic_serving_messages
        async for reply in self._replies(handler, handler.create_chat_completion, call, info):
            if isinstance(reply, AsyncGenerator):
                async for event in name_streamed_tool_use(handler.message_stream_converter(reply)):
                    yield event
            else:
                refused = isinstance(reply, api.ErrorResponse)
                yield reply if refused else name_tool_use(handler.messages_full_converter(reply))

    async def responses(self, call: Any, info: RawRequestInfo) -> AsyncGenerator[Any, None]:
        """Runs a request of OpenAI's Responses API; yields events, a response, or an error."""
        handler = self._app_state.openai_serving_responses
        async for reply in self._replies(handler, handler.create_responses, call, info):
            if isinstance(reply, AsyncGenerator):
                async for event in reply:
                    yield f"event: {event.type}\ndata: {event.model_dump_json(by_alias=True)}\n\n"
            else:
                yield reply

    async def _replies(
        self, handler: Any, create: Callable[..., Any], call: Any, info: RawRequestInfo
    ) -> AsyncGenerator[Any, None]:
        """Yields the result of `create`, with errors converted to Ray Serve LLM's format."""
        try:
            reply = await create(call, RawRequestInfo.to_starlette_request_optional(info))
        except (ValueError, VLLMClientError) as error:
            yield self._make_error_response(handler, error)
            return
        if isinstance(reply, ErrorResponse):
            reply = api.ErrorResponse(error=api.ErrorInfo(**reply.error.model_dump()))
        yield reply
