"""OpenAI's own client: chats whole, streamed, and asynchronous; forms, tools, completions, responses, models."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import openai
from probing import ASK, FORM, TOOL, WORDS, Endpoint, check_form, run
from pydantic import BaseModel

SAME = {"max_tokens": 12, "temperature": 0}


class Triage(BaseModel):
    department: Literal["内科", "外科"]
    urgent: bool


def client(endpoint: Endpoint) -> openai.OpenAI:
    return openai.OpenAI(base_url=endpoint.v1, api_key=endpoint.key, max_retries=0)


def whole(endpoint: Endpoint) -> Any:
    return client(endpoint).chat.completions.create(model=endpoint.model, messages=ASK, **SAME)


def chat(endpoint: Endpoint) -> None:
    answer = whole(endpoint)
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12


def stream(endpoint: Endpoint) -> None:
    events = list(
        client(endpoint).chat.completions.create(
            model=endpoint.model, messages=ASK, stream=True, stream_options={"include_usage": True}, **SAME
        )
    )
    answer = whole(endpoint)
    text = "".join(event.choices[0].delta.content or "" for event in events if event.choices)
    assert text == answer.choices[0].message.content
    assert events[-1].usage.completion_tokens == answer.usage.completion_tokens


def asynchronous(endpoint: Endpoint) -> None:
    async def both() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=endpoint.v1, api_key=endpoint.key, max_retries=0) as other:
            answer = await other.chat.completions.create(model=endpoint.model, messages=ASK, **SAME)
            events = await other.chat.completions.create(model=endpoint.model, messages=ASK, stream=True, **SAME)
            text = "".join([event.choices[0].delta.content or "" async for event in events])
            return answer.choices[0].message.content, text

    assert set(asyncio.run(both())) == {whole(endpoint).choices[0].message.content}


def seed(endpoint: Endpoint) -> None:
    texts = [
        client(endpoint)
        .chat.completions.create(model=endpoint.model, messages=ASK, max_tokens=12, temperature=1, seed=number)
        .choices[0]
        .message.content
        for number in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def form(endpoint: Endpoint) -> None:
    asked = {"type": "json_schema", "json_schema": {"name": "triage", "schema": FORM, "strict": True}}
    answer = client(endpoint).chat.completions.create(
        model=endpoint.model, messages=ASK, max_tokens=60, response_format=asked
    )
    check_form(json.loads(answer.choices[0].message.content))


def parse(endpoint: Endpoint) -> None:
    answer = client(endpoint).chat.completions.parse(
        model=endpoint.model, messages=ASK, max_tokens=60, response_format=Triage
    )
    check_form(answer.choices[0].message.parsed.model_dump())


def tools(endpoint: Endpoint) -> None:
    named = {"type": "function", "function": {"name": "lookup"}}
    for choice in ("required", named):
        answer = client(endpoint).chat.completions.create(
            model=endpoint.model, messages=ASK, tools=[TOOL], tool_choice=choice, parallel_tool_calls=False,
            max_tokens=120, logit_bias=endpoint.short_calls,
        )  # fmt: skip
        (call,) = answer.choices[0].message.tool_calls
        assert call.function.name == "lookup"
        check_form(json.loads(call.function.arguments))
        turns = [*ASK, answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "二楼"}]
        after = client(endpoint).chat.completions.create(model=endpoint.model, messages=turns, tools=[TOOL], **SAME)
        assert after.usage.prompt_tokens > answer.usage.prompt_tokens


def streamed_tools(endpoint: Endpoint) -> None:
    events = client(endpoint).chat.completions.create(
        model=endpoint.model, messages=ASK, tools=[TOOL], tool_choice="required", parallel_tool_calls=False,
        max_tokens=120, logit_bias=endpoint.short_calls, stream=True,
    )  # fmt: skip
    parts = [call.function for event in events for call in event.choices[0].delta.tool_calls or ()]
    assert [part.name for part in parts if part.name] == ["lookup"]
    check_form(json.loads("".join(part.arguments or "" for part in parts)))


def completions(endpoint: Endpoint) -> None:
    settings: Any = {"model": endpoint.model, "prompt": WORDS, **SAME}
    answer = client(endpoint).completions.create(**settings)
    assert answer.usage.completion_tokens == 12
    events = client(endpoint).completions.create(**settings, stream=True)
    assert "".join(event.choices[0].text for event in events) == answer.choices[0].text
    echoed = client(endpoint).completions.create(**settings, echo=True, logprobs=1).choices[0]
    assert echoed.text == WORDS + answer.choices[0].text
    assert len(echoed.logprobs.token_logprobs) == answer.usage.total_tokens


def responses(endpoint: Endpoint) -> None:
    answer = client(endpoint).responses.create(model=endpoint.model, input=WORDS, max_output_tokens=12, temperature=0)
    assert answer.output_text == whole(endpoint).choices[0].message.content


def models(endpoint: Endpoint) -> None:
    assert endpoint.model in [model.id for model in client(endpoint).models.list()]


def embeddings(endpoint: Endpoint) -> None:
    client(endpoint).embeddings.create(model=endpoint.model, input=WORDS)


def images(endpoint: Endpoint) -> None:
    part: Any = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    turn: Any = {"role": "user", "content": [part, {"type": "text", "text": WORDS}]}
    client(endpoint).chat.completions.create(model=endpoint.model, messages=[turn], **SAME)


run(
    "openai",
    {
        "chat": chat, "stream": stream, "async": asynchronous, "seed": seed, "json_schema": form, "parse": parse, "tools": tools,
        "streamed tools": streamed_tools, "completions": completions, "responses": responses, "models": models,
        "embeddings": embeddings, "images": images,
    },
)  # fmt: skip
