"""Request body of OpenAI's Responses API, where a chat is a list of items: messages, tool calls, and their results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from serve.requests.base import Body, Part, as_one_fault, refuse_media
from serve.requests.bounds import check_schema
from serve.requests.chat import ChatRequest
from serve.requests.constraints import Function, Name, Schema, Strict, Tool
from serve.requests.sampling import LARGEST_SEED, MOST_STOPS, Stop
from serve.requests.turns import CalledFunction, ToolCall, Turn

_STORED = "responses are not stored; send the earlier messages in input"


class ContentPart(Part):
    """A part of an item's text, in the format of requests or of earlier responses."""

    type: Literal["input_text", "output_text", "text", "refusal", "reasoning_text", "summary_text"]
    text: str = ""
    refusal: str = ""
    annotations: list[Any] = Field([], max_length=0)
    logprobs: list[Any] = Field([])


Content = Annotated[str | Annotated[list[ContentPart], Field(min_length=1)], BeforeValidator(refuse_media)]


class Item(Part):
    """A message, a tool call, its result, or reasoning. `id`, `status` and `phase` are from an earlier response."""

    type: Literal["message", "function_call", "function_call_output", "reasoning"] = "message"
    id: str | None = None
    status: str | None = None
    phase: str | None = None
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: Content | None = None
    summary: list[ContentPart] = Field([])
    call_id: str | None = Field(None, max_length=256)
    name: Name | None = None
    arguments: str | None = None
    output: Content | None = None

    @model_validator(mode="after")
    def _has_its_parts(self) -> Item:
        needed = {
            "message": ("role", "content"),
            "function_call": ("call_id", "name", "arguments"),
            "function_call_output": ("call_id", "output"),
            "reasoning": (),
        }[self.type]
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f"{name}: is required with type {self.type}")
        return self

    def text(self) -> str:
        """Returns the item's text, from the field that its type uses."""
        value = self.output if self.type == "function_call_output" else self.content or self.summary
        return value if isinstance(value, str) else "".join(part.text or part.refusal for part in value or ())

    def plain(self) -> dict[str, Any]:
        """Converts the item to vLLM's format. vLLM reads only the first part of a text, so the parts are joined."""
        if self.type == "function_call":
            return {"type": self.type, "call_id": self.call_id, "name": self.name, "arguments": self.arguments}
        if self.type == "function_call_output":
            return {"type": self.type, "call_id": self.call_id, "output": self.text()}
        if self.type == "reasoning":
            thought = [{"type": "reasoning_text", "text": self.text()}]
            return {"type": self.type, "id": self.id or "rs_0", "summary": [], "content": thought}
        role = "system" if self.role == "developer" else self.role
        return {"type": self.type, "role": role, "content": self.text()}

    def turn(self) -> Turn:
        """Converts the item to one turn of a chat request, which is used for validation only."""
        if self.type == "function_call":
            called = CalledFunction(name=self.name or "", arguments=self.arguments or "")
            return Turn(role="assistant", tool_calls=[ToolCall(id=self.call_id or "", function=called)])
        if self.type == "function_call_output":
            return Turn(role="tool", content=self.text(), tool_call_id=self.call_id)
        if self.type == "reasoning":
            return Turn(role="assistant", content="", reasoning=self.text())
        return Turn(role=self.role or "user", content=self.text())


class FlatTool(Part):
    """A function that the model may call. Unlike in chat requests, its fields are not nested under `function`."""

    type: Literal["function"]
    name: Name
    description: str | None = Field(None, max_length=8192)
    parameters: Schema | None = None
    strict: Strict = None

    def tool(self) -> Tool:
        """Converts the tool to the format of chat requests."""
        return Tool(function=Function(name=self.name, description=self.description, parameters=self.parameters))


class NamedFlatTool(Part):
    """A `tool_choice` that names a function."""

    type: Literal["function"]
    name: Name


class TextFormat(Part):
    """The output format of a response's text."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = Field(None, max_length=64)
    description: str | None = Field(None, max_length=4096)
    strict: bool | None = None
    schema_: Schema | None = Field(None, alias="schema")

    @model_validator(mode="after")
    def _has_its_schema(self) -> TextFormat:
        if (self.type == "json_schema") != (self.schema_ is not None):
            raise ValueError("text.format: schema is required with type json_schema, and not allowed with other types")
        if self.schema_ is not None:
            check_schema(self.schema_, "text.format.schema")
        return self


class TextConfig(Part):
    """`text` of a request."""

    REFUSED: ClassVar[Mapping[str, str]] = {"verbosity": "request the response length in instructions"}

    format: TextFormat | None = None


class Reasoning(Part):
    """`reasoning` of a request."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto"] | None = None


class ResponsesRequest(Body):
    """Body of POST /v1/responses. Nothing is stored, even with `store=true`."""

    REFUSED: ClassVar[Mapping[str, str]] = {
        "previous_response_id": _STORED,
        "conversation": _STORED,
        "prompt": _STORED,
        "max_tool_calls": "only the client calls tools; remove it",
        "moderation": "moderation is not supported; remove it",
        "context_management": "truncation is not supported; send what fits the context",
    }

    input: Annotated[list[Item], Field(min_length=1)] | str  # items first, so that their errors are reported first
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    seed: int | None = Field(None, ge=-LARGEST_SEED - 1, le=LARGEST_SEED)
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None = None
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    ignore_eos: bool = False
    stream: bool = False
    tools: list[FlatTool] = Field([], max_length=128)
    tool_choice: Literal["none", "auto", "required"] | NamedFlatTool | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] = Field([])
    truncation: Literal["disabled"] | None = None
    background: Literal[False] = False

    @model_validator(mode="after")
    def _is_a_chat(self) -> ResponsesRequest:
        with as_one_fault():
            self.chat()
        return self

    def chat(self) -> ChatRequest:
        """Converts the body to a chat request with the turns, tools, and template settings, for validation only."""
        turns = [Turn(role="system", content=self.instructions)] if self.instructions else []
        turns += (
            [Turn(role="user", content=self.input)]
            if isinstance(self.input, str)
            else [one.turn() for one in self.input]
        )
        choice = self.tool_choice
        named = {"type": "function", "function": {"name": choice.name}} if isinstance(choice, NamedFlatTool) else choice
        return ChatRequest.model_validate(
            {
                "messages": turns,
                "tools": [tool.tool() for tool in self.tools],
                "tool_choice": named,
                "reasoning_effort": self.reasoning.effort if self.reasoning else None,
            }
        )

    def settings(self) -> dict[str, Any]:
        """Returns the given settings as arguments of vLLM's request."""
        given = self.model_dump(
            exclude_unset=True, exclude={"model", "input", "background"}, exclude_none=True, by_alias=True
        )
        if not self.tools:
            for name in ("tools", "tool_choice", "parallel_tool_calls"):
                given.pop(name, None)
        given["input"] = self.input if isinstance(self.input, str) else [item.plain() for item in self.input]
        return {**given, "store": False}

    def wants_usage(self) -> bool:
        """Returns True: the last event of a stream always contains the usage."""
        return True
