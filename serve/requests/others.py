"""Request bodies of completions, tokenize, detokenize, and score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field, model_validator

from serve.requests.base import Body, TokenId, TokenIds, as_one_fault
from serve.requests.chat import Argument, ChatRequest
from serve.requests.constraints import Tool
from serve.requests.sampling import Sampling
from serve.requests.turns import Turn

MOST_PROMPTS: Final = 64


class CompletionRequest(Sampling):
    """Body of POST /v1/completions."""

    REFUSED: ClassVar[Mapping[str, str]] = {
        **Sampling.REFUSED,
        "suffix": "fill-in-the-middle is not supported; remove it",
        "messages": "send a chat to /v1/chat/completions",
    }

    prompt: (
        Annotated[str, Field(min_length=1)]
        | TokenIds
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=MOST_PROMPTS)]
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MOST_PROMPTS)]
    )
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool = False
    add_special_tokens: bool = True


_OF_CHATS = frozenset({"add_generation_prompt", "continue_final_message", "tools", "chat_template_kwargs"})


class TokenizeRequest(Body):
    """Body of POST /tokenize: a text, or a chat, which is rendered with the chat template."""

    REFUSED: ClassVar[Mapping[str, str]] = {"chat_template": ChatRequest.REFUSED["chat_template"]}

    prompt: str | None = None
    messages: list[Turn] | None = Field(None, min_length=1)
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool = False
    tools: list[Tool] = Field([], max_length=128)
    chat_template_kwargs: dict[str, Argument] | None = Field(None, max_length=16)
    return_token_strs: bool = False

    @model_validator(mode="after")
    def _one_of_both(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        given = self.model_fields_set & _OF_CHATS
        if self.prompt is not None and given:
            raise ValueError(f"{min(given)}: requires messages")
        if self.messages is not None:
            with as_one_fault():
                self.chat()
        return self

    def chat(self) -> ChatRequest:
        """Returns the chat to tokenize."""
        names = self.model_fields_set & {*_OF_CHATS, "add_special_tokens"}
        given = {name: getattr(self, name) for name in names}
        return ChatRequest.model_validate({"messages": self.messages, **given})

    def settings(self) -> dict[str, Any]:
        """Returns the arguments of the engine's tokenizer."""
        aside = {"model", "messages"}
        given = self.model_dump(exclude_unset=True, exclude_none=True, exclude=aside)
        return given if self.messages is None else {**given, **self.chat().settings()}


class DetokenizeRequest(Body):
    """Body of POST /detokenize."""

    tokens: list[TokenId]


class ScoreRequest(Body):
    """Body of POST /v1/score: conversations, each ending with the assistant's turn to score."""

    conversations: list[Annotated[list[Turn], Field(min_length=2)]] = Field(min_length=1, max_length=256)
    cut_off: list[bool] | None = Field(
        None,
        description="for each conversation, whether its response was truncated and so lacks an end-of-turn token; default: false",
    )

    @model_validator(mode="after")
    def _fit_together(self) -> ScoreRequest:
        if self.cut_off is not None and len(self.cut_off) != len(self.conversations):
            raise ValueError(f"cut_off: has {len(self.cut_off)} flags for {len(self.conversations)} conversations")
        for index, turns in enumerate(self.conversations):
            if any(turn.tool_calls for turn in turns):
                raise ValueError(f"conversations.{index}: has tool_calls; a reward model accepts only text")
        return self
