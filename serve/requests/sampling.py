"""Settings common to chat and completion requests: sampling, stop conditions, and output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, field_validator, model_validator

from serve.requests.base import Body, Part, TokenId
from serve.requests.constraints import ResponseFormat, StructuredOutputs

MOST_ANSWERS: Final = 16
MOST_STOPS: Final = 16
MOST_BIASED: Final = 1024
LARGEST_SEED: Final = 2**63 - 1

Stop = Annotated[str, Field(min_length=1, max_length=200)]


class StreamOptions(Part):
    """`stream_options` of OpenAI's API and of vLLM."""

    include_usage: bool = False
    include_obfuscation: Literal[False] = False
    continuous_usage_stats: bool = False


class Sampling(Body):
    """Sampling settings of one request, under vLLM's names."""

    REFUSED: ClassVar[Mapping[str, str]] = {
        "use_beam_search": "beam search is not supported; remove it",
        "length_penalty": "beam search is not supported; remove it",
        "vllm_xargs": "clients cannot configure extensions; remove it",
        "request_id": "send it as the header X-Request-Id",
        "logits_processors": "custom code is not supported; remove it",
        "guided_json": "was replaced by structured_outputs.json",
        "guided_regex": "was replaced by structured_outputs.regex",
        "guided_choice": "was replaced by structured_outputs.choice",
        "guided_grammar": "was replaced by structured_outputs.grammar",
    }

    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    min_tokens: int = Field(0, ge=0)
    n: int = Field(1, ge=1, le=MOST_ANSWERS)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    min_p: float | None = Field(None, ge=0, le=1)
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None = None
    stop_token_ids: list[TokenId] = Field([], max_length=64)
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    seed: int | None = Field(None, ge=-LARGEST_SEED - 1, le=LARGEST_SEED)
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(None, max_length=MOST_BIASED)
    allowed_token_ids: list[TokenId] | None = Field(None, min_length=1, max_length=4096)
    bad_words: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field([], max_length=64)
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    truncate_prompt_tokens: int | None = Field(None, ge=1, lt=2**31)
    prompt_logprobs: int | None = Field(None, ge=0, le=20)
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    best_of: Literal[1] | None = None
    priority: int = 0
    cache_salt: str | None = Field(None, min_length=1, max_length=128)

    @field_validator("logit_bias")
    @classmethod
    def _names_tokens(cls, bias: dict[str, float] | None) -> dict[str, float] | None:
        for token in bias or ():
            if not (token.isascii() and token.isdigit() and len(token) <= 10):
                raise ValueError(f"'{token}' is not a token id")
        return bias

    @model_validator(mode="after")
    def _fit_together(self) -> Sampling:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options: requires stream=true")
        if self.priority:
            raise ValueError("priority: not supported, because requests are scheduled fairly by key; remove it")
        if self.n > 1 and self.temperature == 0:
            raise ValueError("n: with temperature 0 all responses are the same; raise the temperature, or set n to 1")
        if self.stream and self.prompt_logprobs is not None:
            raise ValueError("prompt_logprobs: not supported with stream=true; set stream=false")
        if self.structured_outputs is not None and self._formats():
            raise ValueError("structured_outputs: give either it or response_format")
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens: {self.min_tokens} is more than max_tokens {self.max_tokens}")
        return self

    def _formats(self) -> bool:
        return self.response_format is not None and self.response_format.type != "text"

    def settings(self) -> dict[str, Any]:
        """Returns the given settings as arguments of vLLM's request.

        Streams always report usage, because limits and metrics depend on it.
        """
        aside = {"model", "stream_options", "best_of", "priority", *(() if self._formats() else ("response_format",))}
        given = self.model_dump(exclude_unset=True, exclude=aside, exclude_none=True, by_alias=True)
        if self.stream:
            each = self.stream_options is not None and self.stream_options.continuous_usage_stats
            given["stream_options"] = {"include_usage": True, **({"continuous_usage_stats": True} if each else {})}
        return given

    def wants_usage(self) -> bool:
        """Returns whether the client requested the usage chunk at the end of a stream."""
        return self.stream_options is not None and self.stream_options.include_usage
