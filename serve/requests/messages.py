"""Request bodies of Anthropic's Messages API: each turn consists of text, tool-use, and tool-result blocks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from serve.requests.base import Body, Part, as_one_fault, refuse_media
from serve.requests.chat import ChatRequest
from serve.requests.constraints import Function, Name, Schema, Tool
from serve.requests.sampling import MOST_STOPS, Stop
from serve.requests.turns import CalledFunction, ToolCall, Turn


class TextBlock(Part):
    """A text block. `cache_control` is ignored: the prefix cache is automatic."""

    type: Literal["text"]
    text: str
    cache_control: dict[str, Any] | None = None
    citations: list[Any] = Field([], max_length=0)


class ToolUse(Part):
    """A tool call from an earlier response."""

    type: Literal["tool_use"]
    id: str = Field(max_length=256)
    name: Name
    input: dict[str, Any]
    cache_control: dict[str, Any] | None = None


class ToolResult(Part):
    """The result of a tool call."""

    type: Literal["tool_result"]
    tool_use_id: str = Field(max_length=256)
    content: Annotated[str | list[TextBlock], BeforeValidator(refuse_media)] = ""
    is_error: bool = False
    cache_control: dict[str, Any] | None = None

    def text(self) -> str:
        """Returns the result's text, with its blocks joined."""
        return self.content if isinstance(self.content, str) else "".join(block.text for block in self.content)


class Thinking(Part):
    """Reasoning from an earlier response."""

    type: Literal["thinking"]
    thinking: str
    signature: str | None = None


Block = Annotated[TextBlock | ToolUse | ToolResult | Thinking, Field(discriminator="type")]


class MessagesTurn(Part):
    """One turn of the conversation."""

    role: Literal["user", "assistant", "system"]
    content: Annotated[str | Annotated[list[Block], Field(min_length=1)], BeforeValidator(refuse_media)]

    def turns(self) -> list[Turn]:
        """Converts this turn to turns of a chat. Each tool result becomes a separate turn, before the rest."""
        blocks = [TextBlock(type="text", text=self.content)] if isinstance(self.content, str) else self.content
        results = [
            Turn(role="tool", content=block.text(), tool_call_id=block.tool_use_id)
            for block in blocks
            if isinstance(block, ToolResult)
        ]
        calls = [
            ToolCall(
                id=block.id,
                function=CalledFunction(name=block.name, arguments=json.dumps(block.input, ensure_ascii=False)),
            )
            for block in blocks
            if isinstance(block, ToolUse)
        ]
        text = "".join(block.text for block in blocks if isinstance(block, TextBlock))
        thought = "".join(block.thinking for block in blocks if isinstance(block, Thinking))
        if results and not (text or calls or thought):
            return results
        own = Turn(role=self.role, content=text, tool_calls=calls, reasoning=thought or None)
        return [*results, own]


class MessagesTool(Part):
    """A function that the model may call."""

    type: Literal["custom"] | None = None
    name: Name
    description: str | None = Field(None, max_length=8192)
    input_schema: Schema
    strict: bool | None = None
    cache_control: dict[str, Any] | None = None

    def tool(self) -> Tool:
        """Converts the tool to the format of chat requests."""
        return Tool(function=Function(name=self.name, description=self.description, parameters=self.input_schema))


class MessagesToolChoice(Part):
    """The choice of whether the model calls a tool, and which one."""

    type: Literal["auto", "any", "tool", "none"]
    name: Name | None = None
    disable_parallel_tool_use: bool | None = None

    @model_validator(mode="after")
    def _names_the_tool(self) -> MessagesToolChoice:
        if (self.type == "tool") != (self.name is not None):
            raise ValueError("tool_choice: name is required with type tool, and not allowed with other types")
        return self

    def choice(self) -> Any:
        """Converts the choice to the `tool_choice` of chat requests."""
        if self.type == "tool":
            return {"type": "function", "function": {"name": self.name}}
        return {"auto": "auto", "any": "required", "none": "none"}[self.type]


class MessagesFormat(Part):
    """The output format of a response's text."""

    type: Literal["json_schema"]
    schema_: Schema = Field(alias="schema")


class OutputConfig(Part):
    """`output_config` of a request."""

    format: MessagesFormat | None = None
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None


class CountTokensRequest(Body):
    """Body of POST /v1/messages/count_tokens: the fields that determine the prompt."""

    REFUSED: ClassVar[Mapping[str, str]] = {
        "thinking": "not supported; set chat_template_kwargs if the chat template has such a variable",
        "mcp_servers": "only the client calls tools; remove it",
        "container": "code execution is not supported; remove it",
        "context_management": "truncation is not supported; send what fits the context",
    }

    messages: list[MessagesTurn] = Field(min_length=1)
    system: str | list[TextBlock] | None = None
    tools: list[MessagesTool] = Field([], max_length=128)
    tool_choice: MessagesToolChoice | None = None
    output_config: OutputConfig | None = None
    chat_template_kwargs: dict[str, str | bool | int | float] | None = Field(None, max_length=16)

    @model_validator(mode="after")
    def _is_a_chat(self) -> CountTokensRequest:
        with as_one_fault():
            self.chat()
        return self

    def chat(self) -> ChatRequest:
        """Converts the body to a chat request. As in Anthropic's API, a last turn of the assistant is continued."""
        return ChatRequest.model_validate({name: value for name, value in self._given().items() if value is not None})

    def _given(self) -> dict[str, Any]:
        """Returns the fields of the chat request; `chat` omits those that are None."""
        system = self.system if isinstance(self.system, str | None) else "".join(block.text for block in self.system)
        turns = [Turn(role="system", content=system)] if system else []
        turns += [turn for given in self.messages for turn in given.turns()]
        output = self.output_config or OutputConfig()
        return {
            "messages": turns,
            "tools": [tool.tool() for tool in self.tools],
            "tool_choice": self.tool_choice.choice() if self.tool_choice else None,
            "parallel_tool_calls": not self.tool_choice.disable_parallel_tool_use if self.tool_choice else None,
            "chat_template_kwargs": self.chat_template_kwargs,
            "continue_final_message": True if turns[-1].role == "assistant" else None,
            "reasoning_effort": output.effort,
            "response_format": None
            if output.format is None
            else {"type": "json_schema", "json_schema": {"schema": output.format.schema_}},
        }


class MessagesRequest(CountTokensRequest):
    """Body of POST /v1/messages."""

    max_tokens: int = Field(ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    stop_sequences: list[Stop] = Field([], max_length=MOST_STOPS)
    stream: bool = False

    def _given(self) -> dict[str, Any]:
        return {
            **super()._given(),
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "stop": self.stop_sequences or None,
            "stream": self.stream,
        }
