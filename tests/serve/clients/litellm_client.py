"""LiteLLM: chats whole, streamed, and asynchronous; completions, forms, tools, Anthropic's provider."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import litellm
from probing import ASK, FORM, TOOL, WORDS, Endpoint, check_form, run

SAME = {"max_tokens": 12, "temperature": 0}


def where(endpoint: Endpoint) -> dict[str, Any]:
    return {"model": f"openai/{endpoint.model}", "api_base": endpoint.v1, "api_key": endpoint.key, "num_retries": 0}


def chat(endpoint: Endpoint) -> None:
    answer = litellm.completion(**where(endpoint), messages=ASK, **SAME)
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens == 12


def stream(endpoint: Endpoint) -> None:
    whole = litellm.completion(**where(endpoint), messages=ASK, **SAME)
    options = {"include_usage": True}
    events = list(litellm.completion(**where(endpoint), messages=ASK, stream=True, stream_options=options, **SAME))
    text = "".join(event.choices[0].delta.content or "" for event in events if event.choices)
    assert text == whole.choices[0].message.content
    assert events[-1].usage.completion_tokens == 12


def asynchronous(endpoint: Endpoint) -> None:
    whole = litellm.completion(**where(endpoint), messages=ASK, **SAME)
    other = asyncio.run(litellm.acompletion(**where(endpoint), messages=ASK, **SAME))
    assert other.choices[0].message.content == whole.choices[0].message.content


def completions(endpoint: Endpoint) -> None:
    place = {**where(endpoint), "model": f"text-completion-openai/{endpoint.model}"}
    answer = litellm.text_completion(**place, prompt=WORDS, **SAME)
    assert answer.usage.completion_tokens == 12


def json_schema(endpoint: Endpoint) -> None:
    asked = {"type": "json_schema", "json_schema": {"name": "triage", "schema": FORM, "strict": True}}
    answer = litellm.completion(**where(endpoint), messages=ASK, max_tokens=60, response_format=asked)
    check_form(json.loads(answer.choices[0].message.content))


def tools(endpoint: Endpoint) -> None:
    for choice in ("required", {"type": "function", "function": {"name": "lookup"}}):
        settings: Any = {"tools": [TOOL], "tool_choice": choice, "logit_bias": endpoint.short_calls, "max_tokens": 120}
        answer = litellm.completion(**where(endpoint), messages=ASK, **settings)
        (call,) = answer.choices[0].message.tool_calls
        assert call.function.name == "lookup"
        check_form(json.loads(call.function.arguments))
    turns: Any = [*ASK, answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "二楼"}]
    after = litellm.completion(**where(endpoint), messages=turns, tools=[TOOL], **SAME)
    assert after.usage.prompt_tokens > answer.usage.prompt_tokens


def messages(endpoint: Endpoint) -> None:
    place = {"model": f"anthropic/{endpoint.model}", "api_base": endpoint.url, "api_key": endpoint.key}
    whole = litellm.completion(**where(endpoint), messages=ASK, **SAME)
    answer = litellm.completion(**place, messages=ASK, **SAME)
    assert answer.choices[0].message.content == whole.choices[0].message.content


run(
    "litellm",
    {
        "chat": chat, "stream": stream, "async": asynchronous, "completions": completions, "json_schema": json_schema,
        "tools": tools, "messages": messages,
    },
)  # fmt: skip
