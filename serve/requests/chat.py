"""Request body of POST /v1/chat/completions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from serve.requests.constraints import NamedTool, Tool, ToolChoice
from serve.requests.sampling import Sampling
from serve.requests.turns import Turn

Argument = str | bool | int | float


class ChatRequest(Sampling):
    """Body of POST /v1/chat/completions."""

    REFUSED: ClassVar[Mapping[str, str]] = {
        **Sampling.REFUSED,
        "functions": "was replaced by tools",
        "function_call": "was replaced by tool_choice",
        "audio": "the model generates only text; remove it",
        "verbosity": "request the response length in a system message",
        "moderation": "moderation is not supported; remove it",
        "web_search_options": "web search is not supported; remove it",
        "documents": "put the texts into a message",
        "chat_template": "the checkpoint's chat template is always used; remove it",
        "prompt": "not supported for chats; send prompts to /v1/completions",
    }

    messages: list[Turn] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: list[Tool] = Field([], max_length=128)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    chat_template_kwargs: dict[str, Argument] | None = Field(None, max_length=16)
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool = False
    echo: bool = False
    modalities: list[Literal["text"]] | None = None

    @model_validator(mode="after")
    def _chat_settings_fit_together(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs: requires logprobs=true")
        if (
            self.continue_final_message
            and self.add_generation_prompt
            and "add_generation_prompt" in self.model_fields_set
        ):
            raise ValueError("continue_final_message: cannot be combined with add_generation_prompt=true")
        if self.add_special_tokens:
            raise ValueError("add_special_tokens: the chat template adds the special tokens; remove it")
        if not self.tools and self.tool_choice not in (None, "none", "auto"):
            raise ValueError("tool_choice: requires tools")
        names = [tool.function.name for tool in self.tools]
        if len(set(names)) < len(names):
            raise ValueError("tools: two have the same name")
        if isinstance(self.tool_choice, NamedTool) and self.tool_choice.function.name not in names:
            raise ValueError(f"tool_choice: there is no tool '{self.tool_choice.function.name}'")
        return self

    @property
    def calls_tools(self) -> bool:
        """Whether the response may be a tool call."""
        return bool(self.tools) and self.tool_choice != "none"

    @property
    def reads_calls(self) -> bool:
        """Whether the response's text must be parsed for tool calls, because no `tool_choice` enforces one."""
        return bool(self.tools) and self.tool_choice in (None, "auto")

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yields all text that the chat template may render, as pairs of (path in the body, text)."""
        for index, turn in enumerate(self.messages):
            yield from ((f"messages.{index}", text) for text in turn.texts())
        for index, tool in enumerate(self.tools):
            yield f"tools.{index}", json.dumps(tool.model_dump(), ensure_ascii=False)

    def rendered(self) -> dict[str, Any]:
        """Returns the settings that determine the prompt. `reasoning_effort` becomes template variables, as in vLLM."""
        names = ("messages", "tools", "continue_final_message", "add_generation_prompt")
        given = {name: value for name, value in self.settings().items() if name in names}
        variables = self.chat_template_kwargs or {}
        if self.reasoning_effort is not None:
            thinks = {"enable_thinking": self.reasoning_effort != "none"}
            variables = {**thinks, **variables, "reasoning_effort": self.reasoning_effort}
        return {**given, **({"chat_template_kwargs": variables} if variables else {})}

    def settings(self) -> dict[str, Any]:
        """Returns the given settings as arguments of vLLM's request; see `Sampling.settings`."""
        given = super().settings()
        for name in (
            "modalities",
            "add_special_tokens",
            *(() if self.tools else ("tools", "tool_choice", "parallel_tool_calls")),
        ):
            given.pop(name, None)
        if self.continue_final_message:
            given["add_generation_prompt"] = False
        given["messages"] = [turn.message() for turn in self.messages]
        return given
