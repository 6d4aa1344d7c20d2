"""What a chat may ask of a model, by the model's own chat template."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.model_folder.folders import ModelFolder
from configs.errors import ConfigError
from serve.errors import ApiError
from serve.gateway.abilities import Abilities, abilities_of
from serve.requests import ChatRequest

ASK = [{"role": "user", "content": "头痛怎么办？"}]
TOOL = {"type": "function", "function": {"name": "lookup", "description": "查科室"}}
HERMES = Abilities(("<|im_end|>",), frozenset({"messages", "tools", "enable_thinking"}), "hermes")


def refusal(abilities: Abilities, **body: Any) -> str:
    with pytest.raises(ApiError) as refused:
        abilities.check(ChatRequest.model_validate({"messages": ASK, **body}))
    assert refused.value.status == 400
    return refused.value.message


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "a<|im_end|>"}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "<|im_"}, {"type": "text", "text": "end|>"}]}
            ]
        },
        {"messages": [{"role": "assistant", "content": "x", "reasoning": "<|im_end|>"}, *ASK]},
        {
            "messages": [
                {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '{"a": "<|im_end|>"}'}}]},
                {"role": "tool", "content": "x"},
            ]
        },
        {"tools": [{"type": "function", "function": {"name": "f", "description": "<|im_end|>"}}]},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"<|im_end|>": {}}}}}]},
    ],
)
def test_control_tokens_are_refused_wherever_the_template_writes(body: dict[str, Any]) -> None:
    assert "contains the reserved mark '<|im_end|>'" in refusal(HERMES, **body)


def test_tools_need_a_template_that_takes_them_and_a_parser_that_reads_calls() -> None:
    HERMES.check(ChatRequest.model_validate({"messages": ASK, "tools": [TOOL]}))
    assert "the chat template of this model does not support them" in refusal(Abilities(), tools=[TOOL])
    unread = Abilities((), frozenset({"tools"}))
    assert "does not parse this model's tool calls" in refusal(unread, tools=[TOOL])
    for choice in ("none", "required", {"type": "function", "function": {"name": "lookup"}}):
        unread.check(ChatRequest.model_validate({"messages": ASK, "tools": [TOOL], "tool_choice": choice}))


def test_settings_that_the_template_does_not_read_are_refused() -> None:
    HERMES.check(ChatRequest.model_validate({"messages": ASK, "reasoning_effort": "none"}))
    HERMES.check(ChatRequest.model_validate({"messages": ASK, "chat_template_kwargs": {"enable_thinking": False}}))
    assert refusal(Abilities(), reasoning_effort="low").startswith("reasoning_effort: the chat template")
    for name in ("think", "messages", "tools"):
        assert refusal(HERMES, chat_template_kwargs={name: "x"}).startswith(f"chat_template_kwargs.{name}: ")


def test_the_last_turn_is_answered_or_continued() -> None:
    said = [*ASK, {"role": "assistant", "content": "多"}]
    HERMES.check(ChatRequest.model_validate({"messages": said, "continue_final_message": True}))
    assert "set continue_final_message" in refusal(HERMES, messages=said)
    assert "the last turn is not the assistant's" in refusal(HERMES, continue_final_message=True)


TEMPLATES = {
    "hermes": "{% if tools %}<tool_call>{% endif %}",
    "qwen3_coder": "{% if tools %}<tool_call>\n<function=x>{% endif %}",
    "mistral": "{% if tools %}[TOOL_CALLS]{% endif %}",
    "glm45": "{% if tools %}<tool_call>f<arg_key>{% endif %}",
    "llama3_json": "{% if tools %}<|python_tag|>{% endif %}",
    "": "{% if tools %}call{% endif %}",
}


@pytest.mark.parametrize("parser", TEMPLATES)
def test_the_parser_of_calls_is_found_by_the_template(parser: str, make_model: Callable[..., Path]) -> None:
    folder = ModelFolder(make_model("a"))
    folder.tokenizer.chat_template = TEMPLATES[parser] + folder.tokenizer.chat_template
    found = abilities_of(folder, "")
    assert (found.tool_parser, "[bot]:" in found.marks) == (parser, True)
    assert abilities_of(folder, "none").tool_parser == ""
    assert abilities_of(folder, "xlam").tool_parser == "xlam"


def test_a_parser_for_a_template_without_tools_is_refused(make_model: Callable[..., Path]) -> None:
    with pytest.raises(
        ConfigError, match=r"engine\.tool_parser=hermes: the chat template of .* does not support tools"
    ):
        abilities_of(ModelFolder(make_model("a")), "hermes")
