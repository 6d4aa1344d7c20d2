"""The chat features of a model, which are read from its chat template at build time and checked by the gateway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from actors.model_folder.folders import ModelFolder
from configs.errors import ConfigError
from data.chat import RESERVED, chat_format
from data.chat.messages import find_mark
from data.chat.probes import template_of
from data.chat.templates import variables_of
from serve.errors import ApiError
from serve.requests.chat import ChatRequest

# Strings with which chat templates write a tool call, and the name of the vLLM parser for it. The first match wins,
# because later strings also occur in the formats of earlier ones.
_PARSERS: Final = (
    ("[TOOL_CALLS]", "mistral"),
    ("<|tool_calls_section_begin|>", "kimi_k2"),
    ("<｜tool▁calls▁begin｜>", "deepseek_v3"),
    ("<arg_key>", "glm45"),
    ("<function=", "qwen3_coder"),
    ("<tool_call>", "hermes"),
    ("<|tool_call|>", "granite"),
    ("<|python_tag|>", "llama3_json"),
)
NO_PARSER: Final = "none"


@dataclass(frozen=True)
class Abilities:
    """The chat features of one model.

    Attributes:
        marks: strings that no turn may contain, because they are tokenized as control tokens; by default ChiMed-GPT's.
        variables: variables that the chat template reads, other than the turns.
        tool_parser: name of the vLLM parser of the model's tool calls; empty if none is known.
    """

    marks: tuple[str, ...] = RESERVED
    variables: frozenset[str] = frozenset()
    tool_parser: str = ""

    def check(self, body: ChatRequest) -> None:
        """Rejects a chat that this model cannot respond to as requested.

        Checks what the template supports, whether a response can follow the last turn, and whether tool calls can be
        parsed.

        Raises:
            ApiError: 400; `param` is the offending part of the body.
        """
        self.check_template(body)
        last = body.messages[-1].role
        if body.continue_final_message != (last == "assistant"):
            reason = (
                "The last turn is the assistant's: set continue_final_message to continue it."
                if last == "assistant"
                else "continue_final_message: the last turn is not the assistant's."
            )
            raise ApiError(400, reason, param="messages")
        if body.reads_calls and not self.tool_parser:
            raise ApiError(
                400,
                "tool_choice: this endpoint does not parse this model's tool calls: name a function, use 'required' or 'none', or start "
                "the endpoint with engine.tool_parser.",
                param="tool_choice",
            )

    def check_template(self, body: ChatRequest) -> None:
        """Rejects a chat with parts that the template would drop or misread.

        Raises:
            ApiError: 400; `param` is the offending part of the body.
        """
        for where, text in body.texts():
            if (mark := find_mark(text, self.marks)) is not None:
                raise ApiError(400, f"{where}: contains the reserved mark '{mark}': remove it.", param=where)
        if body.tools and "tools" not in self.variables:
            raise ApiError(
                400, "tools: the chat template of this model does not support them: remove them.", param="tools"
            )
        self._check_variables(body)

    def _check_variables(self, body: ChatRequest) -> None:
        if body.reasoning_effort is not None and not self.variables & {"reasoning_effort", "enable_thinking"}:
            raise ApiError(
                400,
                "reasoning_effort: the chat template of this model does not support it: remove it.",
                param="reasoning_effort",
            )
        for name in body.chat_template_kwargs or ():
            if name not in self.variables or name in ("tools", "messages", "documents"):
                raise ApiError(
                    400,
                    f"chat_template_kwargs.{name}: the chat template of this model has no such variable: remove it.",
                    param="chat_template_kwargs",
                )


def abilities_of(folder: ModelFolder, tool_parser: str) -> Abilities:
    """Returns the chat features of the model in `folder`.

    Args:
        folder: the model.
        tool_parser: the value of `engine.tool_parser`: a parser's name, empty to detect it from the chat template, or
            `none` for no parser.

    Raises:
        ConfigError: the folder has no usable chat template, or `tool_parser` names a parser although the template does
            not support tools.
    """
    marks = chat_format(folder.tokenizer).marks
    template = template_of(folder.tokenizer)
    variables = variables_of(template)
    if tool_parser not in ("", NO_PARSER) and "tools" not in variables:
        raise ConfigError(
            f"engine.tool_parser={tool_parser}: the chat template of {folder.path} does not support tools; leave it out"
        )
    found = tool_parser or (_parser_of(template, _PARSERS) if "tools" in variables else "")
    return Abilities(marks, variables, "" if found == NO_PARSER else found)


def _parser_of(template: str, parsers: Sequence[tuple[str, str]]) -> str:
    return next((name for mark, name in parsers if mark in template), "")
