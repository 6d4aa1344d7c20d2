"""What clients send: every setting of OpenAI's and vLLM's interfaces is passed on, has no effect by its nature, or is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from serve.requests import ChatRequest, CompletionRequest

ASK = [{"role": "user", "content": "头痛怎么办？"}]
SCHEMA = {"type": "object", "properties": {"科室": {"type": "string"}}, "required": ["科室"]}
TOOL = {"type": "function", "function": {"name": "lookup", "parameters": SCHEMA}}
CALL = {"id": "call-1", "type": "function", "function": {"name": "lookup", "arguments": '{"科室": "内科"}'}}


def chat(**more: Any) -> dict[str, Any]:
    return ChatRequest.model_validate({"messages": ASK, **more}).settings()


PASSED_ON: dict[str, Any] = {
    "max_tokens": 5, "max_completion_tokens": 5, "min_tokens": 2, "n": 2, "temperature": 0.5, "top_p": 0.9, "top_k": 5,
    "min_p": 0.1, "stop": ["一", "二", "三", "四", "五"], "stop_token_ids": [5], "include_stop_str_in_output": True,
    "ignore_eos": True, "seed": 7, "presence_penalty": 0.5, "frequency_penalty": 0.5, "repetition_penalty": 1.1,
    "logit_bias": {"17": -100.0}, "allowed_token_ids": [5, 6], "bad_words": ["坏"], "skip_special_tokens": False,
    "spaces_between_special_tokens": False, "truncate_prompt_tokens": 100, "prompt_logprobs": 1, "return_token_ids": True,
    "return_tokens_as_token_ids": True, "logprobs": True, "response_format": {"type": "json_object"},
    "structured_outputs": {"choice": ["是", "否"]}, "reasoning_effort": "low",
    "chat_template_kwargs": {"enable_thinking": False}, "cache_salt": "s", "echo": True,
}  # fmt: skip


@pytest.mark.parametrize("name", PASSED_ON)
def test_a_setting_reaches_the_engine_as_it_is(name: str) -> None:
    assert chat(**{name: PASSED_ON[name]}) == {"messages": ASK, name: PASSED_ON[name]}


NO_EFFECT: dict[str, Any] = {
    "user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "auto", "safety_identifier": "s",
    "prompt_cache_key": "k", "prompt_cache_retention": "24h", "prediction": {"type": "content", "content": "x"},
    "modalities": ["text"], "tools": [], "tool_choice": "none", "parallel_tool_calls": True, "response_format": {"type": "text"},
    "stream": None, "n": None, "temperature": None, "stop": None, "tool_calls": None, "functions": None, "best_of": 1,
    "priority": 0, "add_special_tokens": False,
}  # fmt: skip


@pytest.mark.parametrize("name", NO_EFFECT)
def test_what_changes_no_answer_passes(name: str) -> None:
    assert chat(**{name: NO_EFFECT[name]}) == {"messages": ASK}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"functions": [{"name": "f"}]}, "functions: was replaced by tools"),
        ({"function_call": "auto"}, "function_call: was replaced by tool_choice"),
        ({"modalities": ["audio"]}, "Input should be 'text'"),
        ({"web_search_options": {}}, "web_search_options: web search is not supported"),
        ({"use_beam_search": True}, "use_beam_search: beam search is not supported"),
        ({"add_special_tokens": True}, "add_special_tokens: the chat template adds the special tokens"),
        ({"length_penalty": 1.0}, "length_penalty: beam search is not supported"),
        ({"vllm_xargs": {}}, "vllm_xargs: clients cannot configure extensions"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "include_obfuscation"),
        ({"priority": 1}, "priority: not supported, because requests are scheduled fairly"),
        ({"guided_json": SCHEMA}, "guided_json: was replaced by structured_outputs.json"),
        ({"stop": ["x"] * 17}, "at most 16 items"),
        ({"min_tokens": 9, "max_tokens": 5}, "min_tokens: 9 is more than max_tokens 5"),
        ({"logit_bias": {"头": 1}}, "'头' is not a token id"),
        ({"logit_bias": {"1": 101}}, "less than or equal to 100"),
        ({"n": 2, "temperature": 0}, "n: with temperature 0 all responses are the same"),
        ({"top_logprobs": 2}, "top_logprobs: requires logprobs=true"),
        ({"stream": True, "prompt_logprobs": 1}, "prompt_logprobs: not supported with stream=true"),
        ({"tool_choice": "required"}, "tool_choice: requires tools"),
        ({"tools": [TOOL, TOOL]}, "tools: two have the same name"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice: there is no tool 'x'",
        ),
        ({"response_format": {"type": "json_schema"}}, "response_format: json_schema is required"),
        ({"structured_outputs": {"choice": ["a"], "regex": "a"}}, "structured_outputs: give one of"),
        ({"structured_outputs": {"choice": ["一\n二"]}}, "structured_outputs.choice: a choice is one line"),
        (
            {"structured_outputs": {"choice": ["a"]}, "response_format": {"type": "json_object"}},
            "structured_outputs: give either it or response_format",
        ),
    ],
)
def test_what_would_be_another_answer_is_refused_with_a_reason(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        chat(**more)
    assert message in str(refused.value)


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (nested(40), "more than 32 levels deep"),
        ({"enum": ["x" * 40_000]}, "more than 32,768 characters"),
        ({"type": "array", "maxItems": 10**9}, "multiply to more than 4,096"),
        (
            {
                "type": "array",
                "maxItems": 100,
                "items": {"type": "array", "maxItems": 100, "items": {"type": "integer"}},
            },
            "multiply to more than 4,096",
        ),
        ({"type": "string", "pattern": "(a{100}){100}"}, "repeats multiply"),
        ({"type": "string", "pattern": "a" * 2000}, "more than 1,024 characters"),
    ],
)
def test_schemas_that_could_hold_the_engine_are_refused_everywhere(schema: dict[str, Any], message: str) -> None:
    places: list[dict[str, Any]] = [
        {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}},
        {"structured_outputs": {"json": schema}},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]},
    ]
    for place in places:
        with pytest.raises(ValidationError) as refused:
            chat(**place)
        assert message in str(refused.value)


def test_an_answer_goes_back_as_it_came() -> None:
    """OpenAI's client sends its answer's nulls and empty lists back, and an answer may be a call or a refusal."""
    empty = {"annotations": None, "audio": None, "function_call": None, "reasoning": None, "refusal": None}
    turns = [
        {"role": "developer", "content": [{"type": "text", "text": "简"}, {"type": "text", "text": "短"}]},
        *ASK,
        {"role": "assistant", "content": "多休息。", "tool_calls": [], **empty},
        *ASK,
        {"role": "assistant", "content": None, **empty, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call-1", "content": "[]"},
        {"role": "assistant", "content": None, **empty, "refusal": "不能回答。"},
        *ASK,
    ]
    assert chat(messages=turns)["messages"] == [
        {"role": "system", "content": "简短"},
        *ASK,
        {"role": "assistant", "content": "多休息。"},
        *ASK,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "[]", "tool_call_id": "call-1"},
        {"role": "assistant", "content": "不能回答。"},
        *ASK,
    ]


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "user"},
        {"role": "user", "content": "x", "tool_calls": [CALL]},
        {"role": "assistant", "content": "x", "audio": {"id": "1"}},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]},
        {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "lookup", "arguments": "[1"}}]},
        {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "lookup", "arguments": "[1]"}}]},
    ],
)
def test_turns_that_no_template_can_write_are_refused(turn: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        chat(messages=[turn, *ASK])


def test_completions_have_reasons_of_their_own() -> None:
    with pytest.raises(ValidationError, match="suffix: fill-in-the-middle is not supported"):
        CompletionRequest.model_validate({"prompt": "x", "suffix": "y"})
    with pytest.raises(ValidationError, match="messages: send a chat to /v1/chat/completions"):
        CompletionRequest.model_validate({"prompt": "x", "messages": ASK})


def test_a_stream_always_counts_its_tokens() -> None:
    body = ChatRequest.model_validate({"messages": ASK, "stream": True, "stream_options": {"include_usage": False}})
    assert (body.settings()["stream_options"], body.wants_usage()) == ({"include_usage": True}, False)


def test_settings_travel_as_json() -> None:
    given = chat(
        tools=[TOOL], tool_choice={"type": "function", "function": {"name": "lookup"}}, parallel_tool_calls=False
    )
    assert json.loads(json.dumps(given)) == given
    assert given["tools"] == [TOOL]
    assert given["tool_choice"]["function"] == {"name": "lookup"}
