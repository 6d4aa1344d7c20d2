"""Structured output (JSON, a schema, a pattern, or a choice), and the tools that the model may call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from serve.requests.base import Part
from serve.requests.bounds import LONGEST_PATTERN, MOST_CHOICES, check_pattern, check_schema

Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
Schema = dict[str, Any]
# With strict=false, which LlamaIndex sends, vLLM does not constrain a call at all, not even to a JSON object. Without
# `strict`, it enforces the schema.
Strict = Annotated[bool | None, AfterValidator(lambda strict: strict or None)]


class JsonSchema(Part):
    """OpenAI's `response_format.json_schema`."""

    name: str = Field("schema", max_length=64)
    description: str | None = Field(None, max_length=4096)
    strict: bool = False
    schema_: Schema = Field(alias="schema")

    @model_validator(mode="after")
    def _is_bounded(self) -> JsonSchema:
        self.model_fields_set.add("name")  # vLLM has no default for it, so it must be passed on
        check_schema(self.schema_, "response_format.json_schema.schema")
        return self


class ResponseFormat(Part):
    """OpenAI's `response_format`."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError(
                "response_format: json_schema is required with type json_schema, and not allowed with other types"
            )
        return self


class StructuredOutputs(Part):
    """vLLM's `structured_outputs`: one of five constraints on the response."""

    json_: Schema | str | None = Field(None, alias="json")
    regex: str | None = None
    choice: list[Annotated[str, Field(min_length=1, max_length=LONGEST_PATTERN)]] | None = Field(
        None, min_length=1, max_length=MOST_CHOICES
    )
    grammar: str | None = Field(None, max_length=8 * LONGEST_PATTERN)
    json_object: Literal[True] | None = None

    @model_validator(mode="after")
    def _is_one(self) -> StructuredOutputs:
        if len(self.model_fields_set) != 1:
            raise ValueError("structured_outputs: give one of json, regex, choice, grammar and json_object")
        if isinstance(self.json_, Mapping):
            check_schema(self.json_, "structured_outputs.json")
        elif self.json_ is not None:
            raise ValueError("structured_outputs.json: give the schema as an object, not as text")
        if any(not one.isprintable() for one in self.choice or ()):
            raise ValueError("structured_outputs.choice: a choice is one line of printable text; use regex for others")
        if self.regex is not None:
            check_pattern(self.regex, "structured_outputs.regex")
        return self


class Function(Part):
    """A function that the model may call."""

    name: Name
    description: str | None = Field(None, max_length=8192)
    parameters: Schema | None = None
    strict: Strict = None

    @model_validator(mode="after")
    def _is_bounded(self) -> Function:
        if self.parameters is not None:
            check_schema(self.parameters, f"tools: the parameters of {self.name}")
        return self


class Tool(Part):
    """One of `tools`."""

    type: Literal["function"] = "function"
    function: Function


class NamedFunction(Part):
    """The name in a `tool_choice`."""

    name: Name


class NamedTool(Part):
    """A `tool_choice` that names a function."""

    type: Literal["function"] = "function"
    function: NamedFunction


ToolChoice = Literal["none", "auto", "required"] | NamedTool
