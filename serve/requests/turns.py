"""The turns of a chat, including earlier responses that clients send back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from serve.requests.base import Part, refuse_media

_CALLS = "give the text of the call in tool_calls"


class TextPart(Part):
    """A part of a turn's content."""

    type: Literal["text", "refusal"]
    text: str = ""
    refusal: str = ""


class CalledFunction(Part):
    """The name of a called function, and its arguments as JSON text."""

    name: str = Field(min_length=1, max_length=64)
    arguments: str

    @field_validator("arguments")
    @classmethod
    def _is_an_object(cls, text: str) -> str:
        try:
            value = json.loads(text or "{}")
        except (ValueError, RecursionError):
            raise ValueError("is not JSON") from None
        if not isinstance(value, dict):
            raise ValueError("is not a JSON object")
        return text


class ToolCall(Part):
    """A tool call by the assistant."""

    id: str = Field("", max_length=256)
    type: Literal["function"] = "function"
    index: int | None = None
    function: CalledFunction


class Turn(Part):
    """One turn of a chat. An assistant's turn may be a complete response of this endpoint, sent back."""

    REFUSED: ClassVar[Mapping[str, str]] = {
        "audio": "audio is not supported; remove it",
        "function_call": _CALLS,
    }

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str | Annotated[list[TextPart], Field(min_length=1)] | None, BeforeValidator(refuse_media)] = (
        None
    )
    name: str | None = Field(None, max_length=256)
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    annotations: list[Any] = Field([], max_length=0)
    provider_specific_fields: dict[str, Any] | None = None  # LiteLLM adds it to responses that it sends back
    tool_calls: list[ToolCall] = Field([], max_length=128)
    tool_call_id: str | None = Field(None, max_length=256)

    @model_validator(mode="after")
    def _says_something(self) -> Turn:
        if self.role != "assistant" and (self.tool_calls or self.refusal is not None):
            raise ValueError("only an assistant message may have tool_calls or a refusal")
        if self.content is None and self.refusal is None and not self.tool_calls:
            raise ValueError("content: is required")
        return self

    def text(self) -> str:
        """Returns the turn's text, with its parts joined; the refusal if there is no content."""
        if self.content is None:
            return self.refusal or ""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text or part.refusal for part in self.content)

    def texts(self) -> Iterator[str]:
        """Yields all text of this turn that the chat template may render."""
        yield self.text()
        yield from (text for text in (self.reasoning, self.reasoning_content) if text)
        for call in self.tool_calls:
            yield from (call.id, call.function.name, call.function.arguments)

    def message(self) -> dict[str, Any]:
        """Converts the turn to a message for chat templates. `developer`, OpenAI's newer name, becomes `system`."""
        message: dict[str, Any] = {
            "role": "system" if self.role == "developer" else self.role,
            "content": self.text(),
        }
        if reasoning := self.reasoning or self.reasoning_content:
            message["reasoning"] = reasoning
        if self.tool_calls:
            message["tool_calls"] = [
                call.model_dump(exclude={"index"}, exclude_defaults=False) for call in self.tool_calls
            ]
            if self.content is None and self.refusal is None:
                message["content"] = None
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        return message


def plain(turns: Sequence[Turn]) -> list[dict[str, str]]:
    """Converts turns to the reward model's input: role and text only."""
    return [{"role": turn.message()["role"], "content": turn.text()} for turn in turns]
