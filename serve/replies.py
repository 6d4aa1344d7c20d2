"""What gateway and replicas say to each other: plain data, so that neither needs the other's libraries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["chat", "completions", "tokenize", "detokenize", "ready"]


@dataclass(frozen=True)
class EngineRequest:
    """A request to an engine. `prompt` (text, or a chat's messages) is what prefix-aware routing reads."""

    kind: Kind
    prompt: Any = ""
    body: dict[str, Any] = field(default_factory=dict)
    request_id: str = ""


@dataclass(frozen=True)
class Whole:
    """A whole answer, as JSON."""

    json: str
    prompt_tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class Part:
    """Server-sent events of a stream; the counts are those of the whole answer, in its last part, and 0 before."""

    events: str
    prompt_tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class Refusal:
    """An engine's error, with its HTTP status."""

    status: int
    message: str
    param: str | None = None


Reply = Whole | Part | Refusal
