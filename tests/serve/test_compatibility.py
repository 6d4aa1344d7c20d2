"""What OpenAI's client and vLLM's users send, asked of the real endpoint."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

import anthropic
import openai
import pytest

from serve.requests import ChatRequest, CompletionRequest
from serve.requests.base import NEUTRAL

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(420)]

KEY = "a-key-for-this-test"
ASK: Any = [{"role": "user", "content": "头痛怎么办？"}]
DEPARTMENT: dict[str, Any] = {
    "type": "object",
    "properties": {"科室": {"enum": ["内科", "外科"]}, "急": {"type": "boolean"}},
    "required": ["科室", "急"],
    "additionalProperties": False,
}
LOOKUP: dict[str, Any] = {"type": "function", "function": {"name": "lookup", "parameters": DEPARTMENT}}
CALL = '<tool_call>\n{"name": "lookup", "arguments": {"科室": "内科", "急": true}}\n</tool_call>'


def ask(endpoint: Any, **more: Any) -> Any:
    extra = {key: more.pop(key) for key in list(more) if key not in CHAT_PARAMETERS}
    settings = {"model": "tiny", "messages": ASK, "max_tokens": 8, "temperature": 0.7, **more}
    return endpoint.client.chat.completions.create(**settings, extra_body=extra)


CHAT_PARAMETERS = set(inspect.signature(openai.resources.chat.Completions.create).parameters)
COMPLETION_PARAMETERS = set(inspect.signature(openai.resources.Completions.create).parameters)
TRANSPORT = {"self", "extra_headers", "extra_query", "extra_body", "timeout"}


@pytest.mark.parametrize(
    ("parameters", "body"), [(CHAT_PARAMETERS, ChatRequest), (COMPLETION_PARAMETERS, CompletionRequest)]
)
def test_every_argument_of_the_client_passes_or_is_refused_with_a_reason(parameters: set[str], body: Any) -> None:
    assert parameters - TRANSPORT - set(body.model_fields) - set(body.REFUSED) - NEUTRAL == set()


ACCEPTED: dict[str, dict[str, Any]] = {
    "developer": {"messages": [{"role": "developer", "content": "简短"}, *ASK]},
    "two turns of the user": {"messages": ASK * 2},
    "an empty answer": {"messages": [*ASK, {"role": "assistant", "content": ""}, *ASK]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "头痛"}]}]},
    "neutral": {
        "user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "parallel_tool_calls": True,
        "tools": [], "tool_choice": "none", "safety_identifier": "s", "prompt_cache_key": "k",
    },
    "stops": {"stop": ["一", "二", "三", "四", "五"], "stop_token_ids": [3], "include_stop_str_in_output": True},
    "log-probs": {"logprobs": True, "top_logprobs": 5, "prompt_logprobs": 1},
    "tokens": {"return_token_ids": True, "logit_bias": {"17": 5}, "allowed_token_ids": [17, 18], "min_tokens": 2},
    "words": {"bad_words": ["坏"], "skip_special_tokens": False, "spaces_between_special_tokens": False},
    "penalties": {"presence_penalty": 1, "frequency_penalty": 1, "repetition_penalty": 1.2},
    "sampling": {"top_p": 0.9, "top_k": 5, "min_p": 0.05, "seed": 5, "n": 3},
    "lengths": {"max_completion_tokens": 4, "truncate_prompt_tokens": 4, "ignore_eos": True},
    "continued": {"messages": [*ASK, {"role": "assistant", "content": "多"}], "continue_final_message": True},
    "nulls": {"n": None, "stop": None, "seed": None, "tools": None, "response_format": None, "presence_penalty": None},
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(endpoint: Any, name: str) -> None:
    asked = ACCEPTED[name]
    answer = ask(endpoint, **asked)
    assert len(answer.choices) == (asked.get("n") or 1)
    assert answer.usage.completion_tokens > 0
    if name == "tokens":
        assert set(answer.choices[0].token_ids) <= {17, 18}


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"max_tokens": 1020}, "max_tokens"),
        ({"max_tokens": 10**6}, "max_tokens"),
        ({"max_completion_tokens": 1020}, "max_completion_tokens"),
        ({"messages": [{"role": "user", "content": "头痛" * 1200}]}, "messages"),
    ],
)
def test_what_does_not_fit_the_context_names_the_argument(endpoint: Any, more: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(endpoint, **more)
    assert refused.value.body["param"] == param  # type: ignore[index]
    assert "1,024" in refused.value.message


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("constraint", "check"),
    [
        ({"response_format": {"type": "json_object"}, "max_tokens": 60}, None),
        (
            {
                "response_format": {"type": "json_schema", "json_schema": {"name": "d", "schema": DEPARTMENT}},
                "max_tokens": 60,
            },
            lambda text: set(json.loads(text)) == {"科室", "急"},
        ),
        (
            {"structured_outputs": {"choice": ["建议就医", "建议休息"]}, "max_tokens": 40},
            lambda text: text in ("建议就医", "建议休息"),
        ),
        ({"structured_outputs": {"regex": "[0-9]{3}号"}}, lambda text: text[:3].isdigit() and text[3:] == "号"),
        ({"structured_outputs": {"grammar": 'root ::= "是" | "否"'}}, lambda text: text in ("是", "否")),
    ],
)
def test_an_answer_keeps_to_its_form(endpoint: Any, constraint: dict[str, Any], check: Any, stream: bool) -> None:
    answer = ask(endpoint, **constraint, stream=stream)
    if stream:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)
    else:
        text = answer.choices[0].message.content
    assert text.startswith("{") if check is None else check(text)


@pytest.mark.parametrize(
    "constraint",
    [
        {"structured_outputs": {"regex": "[0-9"}},
        {"structured_outputs": {"grammar": "root ::= ("}},
        {"structured_outputs": {"json": {"type": "nothing"}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "d", "schema": {"$ref": "#/nowhere"}}}},
    ],
)
def test_a_form_that_is_none_is_the_clients_fault(endpoint: Any, constraint: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError):
        ask(endpoint, **constraint)


FORM = {"type": "json_schema", "json_schema": {"name": "d", "schema": DEPARTMENT}}
DEAD_ENDS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": ASK, "response_format": FORM, "allowed_token_ids": [17, 18]},
    "/v1/completions": {
        "prompt": "头痛",
        "structured_outputs": {"choice": ["是", "否"]},
        "allowed_token_ids": [17, 18],
    },
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", DEAD_ENDS)
def test_a_form_that_the_other_settings_make_impossible_is_the_clients_fault(
    endpoint: Any, path: str, stream: bool
) -> None:
    answer = endpoint.post(path, {"model": "tiny", "max_tokens": 8, "stream": stream, **DEAD_ENDS[path]})
    assert answer.status_code == (200 if stream and answer.text.startswith('data: {"id') else 400), answer.text
    error = json.loads(answer.text.strip().splitlines()[-1].removeprefix("data: "))["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", "allowed_token_ids")
    assert error["message"].startswith("No token satisfies the response's format together with allowed_token_ids")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "lookup"}}])
def test_a_tool_is_called_where_it_must_be(endpoint: Any, choice: Any) -> None:
    # The grammar allows blanks and further calls, which a model of random weights would write on and on.
    bias = {
        id: value
        for text, value in (("\n", -100), ("\r", -100), ("\t", -100), (" ", -100), ("</s>", 100))
        for id in endpoint.post("/tokenize", {"prompt": text}).json()["tokens"]
    }
    answer = ask(
        endpoint, tools=[LOOKUP], tool_choice=choice, max_tokens=180, parallel_tool_calls=False, logit_bias=bias
    )
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "lookup"
    assert set(json.loads(call.function.arguments)) == {"科室", "急"}
    turns = [*ASK, answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "二楼"}]
    assert ask(endpoint, messages=turns, tools=[LOOKUP], tool_choice="none").usage.prompt_tokens > 0


def test_a_call_that_the_model_writes_is_read(endpoint: Any) -> None:
    forced = {"tools": [LOOKUP], "structured_outputs": {"regex": re.escape(CALL)}, "max_tokens": 180}
    whole = ask(endpoint, **forced).choices[0]
    assert (whole.finish_reason, whole.message.content) == ("tool_calls", None)
    chunks = [chunk for chunk in ask(endpoint, **forced, stream=True) if chunk.choices]
    streamed = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert streamed[0].function.name == whole.message.tool_calls[0].function.name == "lookup"
    arguments = "".join(call.function.arguments or "" for call in streamed)
    assert (
        json.loads(arguments)
        == json.loads(whole.message.tool_calls[0].function.arguments)
        == {"科室": "内科", "急": True}
    )


def test_openais_newer_interface_says_the_same_as_chats(endpoint: Any) -> None:
    chat = ask(endpoint, max_tokens=12, temperature=0)
    settings = {"model": "tiny", "max_output_tokens": 12, "temperature": 0}
    whole = endpoint.client.responses.create(**settings, input=ASK[0]["content"])
    assert whole.output_text == chat.choices[0].message.content
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (
        chat.usage.prompt_tokens,
        chat.usage.completion_tokens,
    )
    events = list(endpoint.client.responses.create(**settings, input=ASK, stream=True))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    assert (events[-1].type, events[-1].response.usage) == ("response.completed", whole.usage)
    turns = [*ASK, *whole.output, *ASK]  # an answer's items go back as they came
    assert endpoint.client.responses.create(**settings, input=turns).usage.input_tokens > whole.usage.input_tokens
    with pytest.raises(openai.BadRequestError, match="previous_response_id: responses are not stored"):
        endpoint.client.responses.create(**settings, input=ASK, previous_response_id=whole.id)
    form = {"format": {"type": "json_schema", "name": "d", "schema": DEPARTMENT}}
    formed = endpoint.client.responses.create(**{**settings, "max_output_tokens": 60}, input=ASK, text=form)
    assert set(json.loads(formed.output_text)) == {"科室", "急"}


def test_anthropics_interface_says_the_same_as_chats(endpoint: Any) -> None:
    chat = ask(endpoint, max_tokens=12, temperature=0)
    client = anthropic.Anthropic(base_url=endpoint.url, api_key=KEY, max_retries=0)
    # The client no longer has an argument for the temperature, which the interface still takes.
    settings = {"model": "tiny", "max_tokens": 12, "extra_body": {"temperature": 0}, "messages": ASK}
    whole = client.messages.create(**settings)
    assert [(block.type, block.text) for block in whole.content] == [("text", chat.choices[0].message.content)]
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (
        chat.usage.prompt_tokens,
        chat.usage.completion_tokens,
    )
    with client.messages.stream(**settings) as stream:
        assert "".join(stream.text_stream) == whole.content[0].text
    tool = {"name": "lookup", "input_schema": DEPARTMENT}
    turns = [
        *ASK,
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t1", "name": "lookup", "input": {"科室": "内科"}}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "二楼"}]},
    ]
    told = client.messages.create(**{**settings, "messages": turns}, tools=[tool], tool_choice={"type": "none"})
    assert told.usage.input_tokens > whole.usage.input_tokens
    with pytest.raises(anthropic.BadRequestError) as refused:
        client.messages.create(**{**settings, "max_tokens": 1020})
    assert refused.value.body["error"]["type"] == "invalid_request_error"  # type: ignore[index]
    with pytest.raises(anthropic.AuthenticationError):
        anthropic.Anthropic(base_url=endpoint.url, api_key="x" * 20, max_retries=0).messages.create(**settings)
