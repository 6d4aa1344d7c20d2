"""OpenAI's responses and Anthropic's messages: what becomes of their bodies, and the shape of errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from serve_fakes import ASK, CountingBackend, Interface, key, text_of

from serve.engines.tool_use import name_streamed_tool_use, name_tool_use
from serve.replies import EngineRequest, Reply, Whole
from serve.requests import ChatRequest, CountTokensRequest, MessagesRequest, ResponsesRequest

SCHEMA = {"type": "object", "properties": {"科室": {"type": "string"}}}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "想"}]}
SAID = {
    "id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
    "content": [{"type": "output_text", "text": "多", "annotations": [], "logprobs": None}, {"type": "output_text", "text": "休息"}],
}  # fmt: skip
CALLED = {
    "type": "function_call",
    "call_id": "c1",
    "name": "lookup",
    "arguments": "{}",
    "id": "fc_1",
    "status": "completed",
}
RETURNED = {"type": "function_call_output", "call_id": "c1", "output": "二楼"}


def test_items_become_turns_and_keep_all_of_their_text() -> None:
    body = ResponsesRequest.model_validate(
        {
            "input": [{"role": "user", "content": "头痛"}, THOUGHT, SAID, CALLED, RETURNED],
            "instructions": "简短",
            "tools": [{"type": "function", "name": "lookup", "parameters": SCHEMA, "strict": True}],
            "tool_choice": {"type": "function", "name": "lookup"},
            "text": {"format": {"type": "json_schema", "name": "d", "schema": SCHEMA}},
            "max_output_tokens": 9,
            "store": True,
            "metadata": {"a": "b"},
            "previous_response_id": None,
        }
    )
    turns = [turn.message() for turn in body.chat().messages]
    assert [(turn["role"], turn["content"]) for turn in turns] == [
        ("system", "简短"), ("user", "头痛"), ("assistant", ""), ("assistant", "多休息"), ("assistant", None), ("tool", "二楼"),
    ]  # fmt: skip
    settings = body.settings()
    assert settings["input"][2] == {"type": "message", "role": "assistant", "content": "多休息"}
    assert settings["input"][3] == {"type": "function_call", "call_id": "c1", "name": "lookup", "arguments": "{}"}
    assert (settings["store"], settings["max_output_tokens"]) == (False, 9)
    assert settings["text"]["format"]["schema"] == SCHEMA
    assert "metadata" not in settings


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"previous_response_id": "r"}, "previous_response_id: responses are not stored"),
        ({"background": True}, "background"),
        ({"input": [{"role": "user"}]}, "content: is required with type message"),
        ({"input": [{**CALLED, "arguments": "["}]}, "is not JSON"),
        ({"tool_choice": "required"}, "tool_choice: requires tools"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format: schema is required"),
        ({"text": {"verbosity": "low"}}, "verbosity: request the response length in instructions"),
        ({"truncation": "auto"}, "truncation"),
    ],
)
def test_responses_that_would_be_something_else_are_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ResponsesRequest.model_validate({"input": "头痛", **more})


def test_blocks_become_a_chat() -> None:
    body = MessagesRequest.model_validate(
        {
            "system": [{"type": "text", "text": "简短", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {"role": "user", "content": "头痛"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "想", "signature": "s"},
                        {"type": "text", "text": "查"},
                        {"type": "tool_use", "id": "t1", "name": "lookup", "input": {"科室": "内科"}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "二楼"}]},
                        {"type": "text", "text": "谢谢"},
                    ],
                },
            ],
            "tools": [{"name": "lookup", "input_schema": SCHEMA}],
            "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
            "max_tokens": 9,
            "stop_sequences": ["。"],
            "metadata": {"user_id": "u"},
        }
    )
    settings = body.chat().settings()
    call = {"id": "t1", "type": "function", "function": {"name": "lookup", "arguments": '{"科室": "内科"}'}}
    assert settings["messages"] == [
        {"role": "system", "content": "简短"},
        {"role": "user", "content": "头痛"},
        {"role": "assistant", "content": "查", "reasoning": "想", "tool_calls": [call]},
        {"role": "tool", "content": "二楼", "tool_call_id": "t1"},
        {"role": "user", "content": "谢谢"},
    ]
    assert (settings["tool_choice"], settings["parallel_tool_calls"]) == ("required", False)
    assert (settings["max_tokens"], settings["stop"]) == (9, ["。"])
    assert settings["tools"][0]["function"]["parameters"] == SCHEMA


def test_a_last_turn_of_the_assistant_is_continued() -> None:
    turns = [{"role": "user", "content": "头痛"}, {"role": "assistant", "content": "多"}]
    settings = MessagesRequest.model_validate({"messages": turns, "max_tokens": 9}).chat().settings()
    assert (settings["continue_final_message"], settings["add_generation_prompt"]) == (True, False)


def test_a_turn_may_be_the_systems() -> None:
    turns = [*ASK, {"role": "system", "content": "简短"}, *ASK]
    settings = MessagesRequest.model_validate({"messages": turns, "max_tokens": 9}).chat().settings()
    assert settings["messages"] == turns


@pytest.mark.parametrize(
    "block",
    [{"type": "image", "source": {"type": "url", "url": "file:///etc/passwd"}}, {"type": "document", "source": {}}],
)
def test_blocks_that_are_no_text_are_refused(block: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MessagesRequest.model_validate({"messages": [{"role": "user", "content": [block]}], "max_tokens": 9})


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages.0.content",
        ),
        ("/v1/messages", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content"),
        ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "image_url"}]}]}, "input.0.content"),
    ],
)
def test_parts_that_are_no_text_are_refused_with_the_reason(path: str, body: Any, where: str) -> None:
    answer = asyncio.run(
        ask(Interface(CountingBackend()), path, {**body, "max_tokens": 9} if "input" not in body else body)
    )
    assert answer.status_code == 400
    assert (
        answer.json()["error"]["message"]
        == f"{where}: has a part of type image_url, and the model accepts only text; remove it."
    )


def test_a_tools_form_is_forced_whatever_strict_says() -> None:
    """With `strict: false` vLLM writes any JSON as the arguments of a call, such as a number."""
    flat = {"name": "lookup", "parameters": SCHEMA, "strict": False}
    chat = ChatRequest.model_validate({"messages": ASK, "tools": [{"type": "function", "function": flat}]})
    assert chat.settings()["tools"] == [{"type": "function", "function": {"name": "lookup", "parameters": SCHEMA}}]
    flat = {"type": "function", **flat}
    settings = ResponsesRequest.model_validate({"input": "头痛", "tools": [flat]}).settings()
    assert settings["tools"] == [{"type": "function", "name": "lookup", "parameters": SCHEMA}]
    strict = ResponsesRequest.model_validate({"input": "头痛", "tools": [{**flat, "strict": True}]}).settings()
    assert strict["tools"][0]["strict"] is True


def test_what_litellm_adds_to_an_answer_passes_and_reaches_nobody() -> None:
    said = {"role": "assistant", "content": "多休息", "provider_specific_fields": {"refusal": None}}
    settings = ChatRequest.model_validate({"messages": [*ASK, said, *ASK]}).settings()
    assert settings["messages"][1] == {"role": "assistant", "content": "多休息"}


def test_a_form_has_a_name_which_vllm_requires() -> None:
    form = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}
    settings = ChatRequest.model_validate({"messages": ASK, "response_format": form}).settings()
    assert settings["response_format"]["json_schema"] == {"name": "schema", "schema": SCHEMA}


def test_anthropics_output_config_is_a_form_and_an_effort() -> None:
    config = {"format": {"type": "json_schema", "schema": SCHEMA}, "effort": "low"}
    body = MessagesRequest.model_validate({"messages": ASK, "max_tokens": 9, "output_config": config})
    settings = body.chat().settings()
    assert settings["response_format"] == {"type": "json_schema", "json_schema": {"name": "schema", "schema": SCHEMA}}
    assert settings["reasoning_effort"] == "low"


def test_tokens_of_messages_are_counted_as_they_would_be_rendered() -> None:
    interface = Interface(TokenCounter())
    body = {"messages": [*ASK, {"role": "assistant", "content": "多"}], "system": "简短"}
    answer = asyncio.run(ask(interface, "/v1/messages/count_tokens", body))
    assert (answer.status_code, answer.json()) == (200, {"input_tokens": 7})
    (asked,) = interface.backend.asked
    turns = [{"role": "system", "content": "简短"}, *ASK, {"role": "assistant", "content": "多"}]
    expected = {"messages": turns, "continue_final_message": True, "add_generation_prompt": False}
    assert (asked.kind, asked.body) == ("tokenize", expected)
    refused = asyncio.run(ask(interface, "/v1/messages/count_tokens", {**body, "max_tokens": 9})).json()
    assert refused["type"] == "error"
    assert refused["error"]["message"] == "max_tokens: is not a parameter of this endpoint; remove it."


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, None),
        ({"chat_template_kwargs": {"a": 1}}, {"a": 1}),
        ({"output_config": {"effort": "low"}}, {"enable_thinking": True, "reasoning_effort": "low"}),
        (
            {"output_config": {"effort": "low"}, "chat_template_kwargs": {"enable_thinking": False}},
            {"enable_thinking": False, "reasoning_effort": "low"},
        ),
    ],
)
def test_the_effort_is_counted_as_the_template_reads_it(more: dict[str, Any], expected: Any) -> None:
    body = CountTokensRequest.model_validate({"messages": ASK, **more})
    assert body.chat().rendered().get("chat_template_kwargs") == expected


class TokenCounter(CountingBackend):
    """Says of every text that it has seven tokens."""

    async def answer(self, model: str, request: EngineRequest) -> AsyncGenerator[Reply, None]:
        self.asked.append(request)
        yield Whole('{"count": 7}', 7, 0)


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [("tool_use", "end_turn", "tool_use"), ("text", "end_turn", "end_turn"), ("tool_use", "max_tokens", "max_tokens")],
)
def test_a_message_that_ends_with_a_call_says_so(kind: str, before: str, after: str) -> None:
    message = SimpleNamespace(stop_reason=before, content=[SimpleNamespace(type=kind)])
    assert name_tool_use(message).stop_reason == after

    async def events() -> AsyncGenerator[str, None]:
        for name, data in (
            ("content_block_start", {"content_block": {"type": kind}}),
            ("content_block_delta", {"delta": {"partial_json": "\ndata: "}}),
            ("message_delta", {"delta": {"stop_reason": before}, "usage": {"output_tokens": 3}}),
        ):
            yield f"event: {name}\ndata: {json.dumps(data)}\n\n"
        yield "data: [DONE]\n\n"

    async def read() -> list[str]:
        return [event async for event in name_streamed_tool_use(events())]

    *_, delta, done = asyncio.run(read())
    assert json.loads(delta.partition("data: ")[2]) == {"delta": {"stop_reason": after}, "usage": {"output_tokens": 3}}
    assert done == "data: [DONE]\n\n"


async def ask(interface: Interface, path: str, body: Any, headers: dict[str, str] | None = None) -> httpx.Response:
    async with interface.http() as client:
        return await client.post(path, json=body, headers=headers)


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"messages": []}, 400, "invalid_request_error"),
        ({"messages": ASK, "max_tokens": 3, "model": "gpt"}, 404, "not_found_error"),
        ({"messages": [{"role": "user", "content": "[bot]:"}], "max_tokens": 3}, 400, "invalid_request_error"),
        (
            {"messages": ASK, "max_tokens": 3, "tools": [{"name": "f", "input_schema": {}}]},
            400,
            "invalid_request_error",
        ),
        ("x" * 2**20, 413, "request_too_large"),
    ],
)
def test_errors_have_anthropics_shape(body: Any, status: int, kind: str) -> None:
    answer = asyncio.run(ask(Interface(CountingBackend()), "/v1/messages", body))
    assert (answer.status_code, answer.json()["type"], answer.json()["error"]["type"]) == (status, "error", kind)
    assert set(answer.json()["error"]) == {"type", "message"}


def test_keys_come_in_either_clients_header() -> None:
    interface = Interface(CountingBackend(), [key("ward")])
    body = {"messages": ASK, "max_tokens": 3}
    for headers, status in (
        ({"x-api-key": text_of("ward")}, 200),
        ({"authorization": f"Bearer {text_of('ward')}"}, 200),
        ({"x-api-key": text_of("other")}, 401),
        ({"x-api-key": text_of("ward"), "authorization": "Bearer wrong-key-wrong-key"}, 401),
    ):
        assert asyncio.run(ask(interface, "/v1/messages", body, headers)).status_code == status
    assert asyncio.run(ask(interface, "/v1/messages", body)).json()["error"]["type"] == "authentication_error"


def test_responses_and_messages_reserve_what_they_may_use() -> None:
    interface = Interface(CountingBackend(), [key("ward", tokens_per_minute=100)])
    headers = {"authorization": f"Bearer {text_of('ward')}"}
    for path, body in (
        ("/v1/responses", {"input": "头痛", "max_output_tokens": 200}),
        ("/v1/messages", {"messages": ASK, "max_tokens": 200}),
    ):
        answer = asyncio.run(ask(interface, path, body, headers))
        assert answer.status_code == 400
        assert "100" in answer.json()["error"]["message"]
    assert interface.backend.asked == []
