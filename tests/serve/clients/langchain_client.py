"""LangChain's ChatOpenAI: invoke, stream, batch; forms by schema and by mode, and bound tools."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from probing import WORDS, Endpoint, check_form, run
from pydantic import BaseModel


class Triage(BaseModel):
    """Where a patient goes."""

    department: Literal["内科", "外科"]
    urgent: bool


@tool
def lookup(department: Literal["内科", "外科"], urgent: bool) -> str:
    """Look up."""
    return department


def model(endpoint: Endpoint, **more: Any) -> ChatOpenAI:
    settings = {"max_tokens": 12, "temperature": 0, **more}
    return ChatOpenAI(model=endpoint.model, base_url=endpoint.v1, api_key=endpoint.key, max_retries=0, **settings)


def invoke(endpoint: Endpoint) -> None:
    answer = model(endpoint).invoke(WORDS)
    assert answer.content
    assert answer.usage_metadata["output_tokens"] == 12


def stream(endpoint: Endpoint) -> None:
    parts = list(model(endpoint, stream_usage=True).stream(WORDS))
    assert "".join(part.content for part in parts) == model(endpoint).invoke(WORDS).content
    assert sum(part.usage_metadata["output_tokens"] for part in parts if part.usage_metadata) == 12


def asynchronous(endpoint: Endpoint) -> None:
    assert asyncio.run(model(endpoint).ainvoke(WORDS)).content == model(endpoint).invoke(WORDS).content


def batch(endpoint: Endpoint) -> None:
    answers = model(endpoint).batch([WORDS, WORDS])
    assert [answer.content for answer in answers] == [model(endpoint).invoke(WORDS).content] * 2


def json_schema(endpoint: Endpoint) -> None:
    formed = model(endpoint, max_tokens=60).with_structured_output(Triage, method="json_schema").invoke(WORDS)
    check_form(formed.model_dump())


def json_mode(endpoint: Endpoint) -> None:
    # Of an object of any form, a model of random weights finds no end: its first token after "{" is made to be "}".
    settings = {"logit_bias": endpoint.bias("}", 100)}
    shape: Any = {"title": "triage", "type": "object", "properties": {}}
    formed = model(endpoint, model_kwargs=settings).with_structured_output(shape, method="json_mode").invoke(WORDS)
    assert formed == {}


def function_calling(endpoint: Endpoint) -> None:
    caller = model(endpoint, max_tokens=120, model_kwargs={"logit_bias": endpoint.short_calls})
    check_form(caller.with_structured_output(Triage, method="function_calling").invoke(WORDS).model_dump())


def tools(endpoint: Endpoint) -> None:
    caller = model(endpoint, max_tokens=120, model_kwargs={"logit_bias": endpoint.short_calls})
    for choice in ("any", "required", "lookup"):
        answer = caller.bind_tools([lookup], tool_choice=choice, parallel_tool_calls=False).invoke(WORDS)
        (call,) = answer.tool_calls
        assert call["name"] == "lookup"
        check_form(call["args"])
    turns = [HumanMessage(WORDS), answer, ToolMessage("二楼", tool_call_id=call["id"])]
    after = model(endpoint).bind_tools([lookup]).invoke(turns)
    assert after.usage_metadata["input_tokens"] > answer.usage_metadata["input_tokens"]


def streamed_tools(endpoint: Endpoint) -> None:
    caller = model(endpoint, max_tokens=120, model_kwargs={"logit_bias": endpoint.short_calls})
    parts = list(caller.bind_tools([lookup], tool_choice="any").stream(WORDS))
    whole = sum(parts[1:], parts[0])
    (call,) = whole.tool_calls
    assert call["name"] == "lookup"
    check_form(call["args"])


def responses(endpoint: Endpoint) -> None:
    answer = model(endpoint, use_responses_api=True).invoke(WORDS)
    assert answer.text == model(endpoint).invoke(WORDS).content


run(
    "langchain-openai",
    {
        "invoke": invoke, "stream": stream, "async": asynchronous, "batch": batch, "json_schema": json_schema,
        "json_mode": json_mode, "function_calling": function_calling, "tools": tools, "streamed tools": streamed_tools,
        "responses": responses,
    },
)  # fmt: skip
