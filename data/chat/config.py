"""The `chat` section of a recipe."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from configs.base import Section

Argument = str | bool | int | float

# The caller that renders the template sets these; a fixed value would break every chat.
NOT_ARGUMENTS = frozenset({"messages", "add_generation_prompt", "tools", "documents"})


class ChatConfig(Section):
    """The chat format. By default it is the chat template of the model folder."""

    template: str | None = Field(
        None,
        description="chat template that replaces the model folder's: chimed, chatml, llama3, or a .jinja file; the export "
        "contains it",
    )
    arguments: dict[str, Argument] = Field(
        {},
        description="values for variables of the template, such as date_string or enable_thinking; they become part of "
        "the exported template",
    )

    @model_validator(mode="after")
    def _arguments_are_variables(self) -> Self:
        for name in self.arguments:
            if not name.isidentifier() or name in NOT_ARGUMENTS:
                raise ValueError(f"arguments.{name}: is not a variable that can be set; use a variable of the template")
        return self
