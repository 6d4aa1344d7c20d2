"""The bodies that the endpoint takes. Unknown keys are refused: a setting that does nothing would go unnoticed."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_PROMPTS = 64
MOST_ANSWERS = 16
LARGEST_SEED = 2**63 - 1

Stop = Annotated[str, Field(min_length=1, max_length=200)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
TokenIds = Annotated[list[TokenId], Field(min_length=1)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())


class _Request(_Body):
    """A whole body."""

    model: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_text(cls, body: Any) -> Any:
        try:
            json.dumps(body, ensure_ascii=False, default=str).encode()  # a body that is no JSON is left to be refused
        except UnicodeEncodeError:
            raise ValueError("The body names half of a surrogate pair (\\ud800 to \\udfff), which is no text") from None
        return body


class TextPart(_Body):
    """A part of a turn's content."""

    type: Literal["text"]
    text: str


class Turn(_Body):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(min_length=1)] | Annotated[list[TextPart], Field(min_length=1)]
    name: str | None = None

    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)

    def message(self) -> dict[str, str]:
        return {"role": self.role, "content": self.text()}


class StreamOptions(_Body):
    include_usage: bool = False


class ResponseFormat(_Body):
    type: Literal["text"]


class Sampling(_Request):
    """What chat and completion requests have in common."""

    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    n: int = Field(1, ge=1, le=MOST_ANSWERS)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    min_p: float | None = Field(None, ge=0, le=1)
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    seed: int | None = Field(None, ge=-LARGEST_SEED - 1, le=LARGEST_SEED)
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    ignore_eos: bool = False
    user: str | None = None

    @model_validator(mode="after")
    def _options_of_streams(self) -> Sampling:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options: only together with stream=true")
        if self.n > 1 and self.temperature == 0:
            raise ValueError("n: with temperature 0 all answers are the same; raise the temperature or ask for one")
        return self

    def settings(self) -> dict[str, Any]:
        """What was set, as vLLM's own request takes it. Usage is always reported: limits and metrics count it."""
        given = self.model_dump(exclude_unset=True, exclude={"stream_options", "user", "model"}, exclude_none=True)
        if self.stream:
            given["stream_options"] = {"include_usage": True}
        return given

    def wants_usage(self) -> bool:
        """Whether the client asked for the usage chunk at the end of a stream."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatRequest(Sampling):
    """POST /v1/chat/completions"""

    messages: list[Turn] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None

    @model_validator(mode="after")
    def _top_needs_logprobs(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs: only together with logprobs=true")
        return self

    def settings(self) -> dict[str, Any]:
        given = super().settings()
        given.pop("response_format", None)
        given["messages"] = [turn.message() for turn in self.messages]
        return given


class CompletionRequest(Sampling):
    """POST /v1/completions"""

    prompt: (
        Annotated[str, Field(min_length=1)]
        | TokenIds
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=MOST_PROMPTS)]
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MOST_PROMPTS)]
    )
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool = False


class TokenizeRequest(_Request):
    """POST /tokenize: a text, or a chat as its template renders it."""

    prompt: str | None = None
    messages: list[Turn] | None = Field(None, min_length=1)
    return_token_strs: bool = False

    @model_validator(mode="after")
    def _one_of_both(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        return self


class DetokenizeRequest(_Request):
    """POST /detokenize"""

    tokens: list[TokenId]


class ScoreRequest(_Request):
    """POST /v1/score: finished chats, each ending with the assistant's turn that is scored."""

    conversations: list[Annotated[list[Turn], Field(min_length=2)]] = Field(min_length=1, max_length=256)
    cut_off: list[bool] | None = Field(
        None,
        description="for each conversation, whether its answer broke off and so has no end mark; default: none did",
    )

    @model_validator(mode="after")
    def _one_flag_each(self) -> ScoreRequest:
        if self.cut_off is not None and len(self.cut_off) != len(self.conversations):
            raise ValueError(f"cut_off: has {len(self.cut_off)} flags for {len(self.conversations)} conversations")
        return self
