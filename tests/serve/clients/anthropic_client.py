"""Anthropic's client: messages whole, streamed, and asynchronous; tools, forms, counts of tokens."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import anthropic
from probing import ASK, FORM, WORDS, Endpoint, check_form, run
from pydantic import BaseModel

# The client has no argument for the temperature, which the interface has.
SAME: Any = {"messages": ASK, "max_tokens": 12, "extra_body": {"temperature": 0}}
TOOL: Any = {"name": "lookup", "description": "Look up.", "input_schema": FORM}


class Triage(BaseModel):
    department: Literal["内科", "外科"]
    urgent: bool


def client(endpoint: Endpoint) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=endpoint.url, api_key=endpoint.key, max_retries=0)


def whole(endpoint: Endpoint) -> Any:
    return client(endpoint).messages.create(model=endpoint.model, **SAME)


def messages(endpoint: Endpoint) -> None:
    answer = whole(endpoint)
    assert answer.content[0].text
    assert answer.usage.output_tokens == 12
    assert answer.usage.input_tokens > 0


def stream(endpoint: Endpoint) -> None:
    answer = whole(endpoint)
    with client(endpoint).messages.stream(model=endpoint.model, **SAME) as events:
        assert "".join(events.text_stream) == answer.content[0].text
        assert events.get_final_message().usage.output_tokens == answer.usage.output_tokens


def asynchronous(endpoint: Endpoint) -> None:
    async def ask() -> Any:
        async with anthropic.AsyncAnthropic(base_url=endpoint.url, api_key=endpoint.key, max_retries=0) as other:
            return await other.messages.create(model=endpoint.model, **SAME)

    assert asyncio.run(ask()).content[0].text == whole(endpoint).content[0].text


def system(endpoint: Endpoint) -> None:
    cached: Any = [{"type": "text", "text": "简短", "cache_control": {"type": "ephemeral"}}]
    answer = client(endpoint).messages.create(model=endpoint.model, system=cached, **SAME)
    assert answer.usage.input_tokens > whole(endpoint).usage.input_tokens


def calling(endpoint: Endpoint) -> dict[str, Any]:
    # A model of random weights writes blanks on and on where a call may have them, but not at the highest temperature.
    return {**SAME, "model": endpoint.model, "tools": [TOOL], "max_tokens": 900, "extra_body": {"temperature": 2}}


def check_call(answer: Any) -> Any:
    call = answer.content[-1]
    assert (answer.stop_reason, call.type, call.name) == ("tool_use", "tool_use", "lookup"), answer
    check_form(call.input)
    return call


def tools(endpoint: Endpoint) -> None:
    settings = calling(endpoint)
    named = client(endpoint).messages.create(**settings, tool_choice={"type": "tool", "name": "lookup"})
    call = check_call(named)
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "二楼"}
    turns: Any = [*ASK, {"role": "assistant", "content": named.content}, {"role": "user", "content": [result]}]
    after = client(endpoint).messages.create(**{**settings, "messages": turns, "max_tokens": 4})
    assert after.usage.input_tokens > named.usage.input_tokens
    # Of calls without a name there may be several: one answer in five is full of them before it ends.
    answers = (client(endpoint).messages.create(**settings, tool_choice={"type": "any"}) for _ in range(8))
    check_call(next(answer for answer in answers if answer.stop_reason != "max_tokens"))


def streamed_tools(endpoint: Endpoint) -> None:
    named: Any = {"type": "tool", "name": "lookup"}
    with client(endpoint).messages.stream(**calling(endpoint), tool_choice=named) as events:
        check_call(events.get_final_message())


def thinking(endpoint: Endpoint) -> None:
    asked: Any = {"type": "enabled", "budget_tokens": 1024}
    client(endpoint).messages.create(model=endpoint.model, messages=ASK, max_tokens=2048, thinking=asked)


def parse(endpoint: Endpoint) -> None:
    answer = client(endpoint).messages.parse(model=endpoint.model, messages=ASK, max_tokens=60, output_format=Triage)
    check_form(answer.parsed_output.model_dump())


def count_tokens(endpoint: Endpoint) -> None:
    counted = client(endpoint).messages.count_tokens(model=endpoint.model, messages=ASK)
    assert counted.input_tokens == whole(endpoint).usage.input_tokens
    with_tools = client(endpoint).messages.count_tokens(model=endpoint.model, messages=ASK, tools=[TOOL], system="简短")
    assert with_tools.input_tokens > counted.input_tokens


def models(endpoint: Endpoint) -> None:
    assert endpoint.model in [model.id for model in client(endpoint).models.list()]


def image(endpoint: Endpoint) -> None:
    source = {"type": "url", "url": "https://example.org/a.png"}
    content: Any = [{"type": "image", "source": source}, {"type": "text", "text": WORDS}]
    client(endpoint).messages.create(
        model=endpoint.model, max_tokens=4, messages=[{"role": "user", "content": content}]
    )


run(
    "anthropic",
    {
        "messages": messages, "stream": stream, "async": asynchronous, "system": system, "tools": tools,
        "streamed tools": streamed_tools, "thinking": thinking, "parse": parse, "count_tokens": count_tokens, "models": models, "images": image,
    },
)  # fmt: skip
