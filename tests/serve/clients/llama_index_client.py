"""LlamaIndex's OpenAILike: chats and completions, whole and streamed; calls of functions, forms."""

from __future__ import annotations

from typing import Any, Literal

from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from probing import WORDS, Endpoint, check_form, run
from pydantic import BaseModel

TURNS = [ChatMessage(role="user", content=WORDS)]


class Triage(BaseModel):
    """Where a patient goes."""

    department: Literal["内科", "外科"]
    urgent: bool


def lookup(department: Literal["内科", "外科"], urgent: bool) -> str:
    """Look up."""
    return department


def model(endpoint: Endpoint, chats: bool = True, **more: Any) -> OpenAILike:
    settings: Any = {"max_tokens": 12, "temperature": 0, "is_function_calling_model": chats, **more}
    return OpenAILike(
        model=endpoint.model, api_base=endpoint.v1, api_key=endpoint.key, max_retries=0, context_window=1024,
        is_chat_model=chats, **settings,
    )  # fmt: skip


def chat(endpoint: Endpoint) -> None:
    answer = model(endpoint).chat(TURNS)
    assert answer.message.content
    assert answer.raw.usage.completion_tokens == 12


def stream(endpoint: Endpoint) -> None:
    deltas = [part.delta for part in model(endpoint).stream_chat(TURNS)]
    assert "".join(deltas) == model(endpoint).chat(TURNS).message.content


def completions(endpoint: Endpoint) -> None:
    answer = model(endpoint, chats=False).complete(WORDS)
    assert answer.raw.usage.completion_tokens == 12
    assert "".join(part.delta for part in model(endpoint, chats=False).stream_complete(WORDS)) == answer.text


def tools(endpoint: Endpoint) -> None:
    known = FunctionTool.from_defaults(lookup, fn_schema=Triage)
    caller = model(endpoint, max_tokens=120, additional_kwargs={"logit_bias": endpoint.short_calls})
    answer = caller.chat_with_tools([known], user_msg=WORDS, tool_required=True)
    (call,) = caller.get_tool_calls_from_response(answer)
    assert call.tool_name == "lookup"
    check_form(call.tool_kwargs)
    result = ChatMessage(role="tool", content="二楼", additional_kwargs={"tool_call_id": call.tool_id})
    after = model(endpoint).chat_with_tools([known], chat_history=[*TURNS, answer.message, result])
    assert after.raw.usage.prompt_tokens > answer.raw.usage.prompt_tokens


def json_schema(endpoint: Endpoint) -> None:
    former = model(endpoint, max_tokens=60, should_use_structured_outputs=True)
    check_form(former.structured_predict(Triage, PromptTemplate(WORDS)).model_dump())


run(
    "llama-index-llms-openai-like",
    {"chat": chat, "stream": stream, "completions": completions, "tools": tools, "json_schema": json_schema},
)
