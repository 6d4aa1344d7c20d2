"""What gateway and replicas say to each other: plain data, so that neither needs the other's libraries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["chat", "completions", "tokenize", "detokenize", "ready"]


@dataclass(frozen=True)
class EngineRequest:
    """A request to an engine, its body as vLLM's own request takes it."""

    kind: Kind
    body: dict[str, Any] = field(default_factory=dict)
    request_id: str = ""

    @property
    def prompt(self) -> str:
        """What Ray's prefix-aware router compares: the prompt as text, or as token numbers. Never empty, as it divides
        by the length.
        """
        if "messages" in self.body:
            return "\n".join(message["content"] for message in self.body["messages"])
        prompt = self.body.get("prompt") or self.kind
        return prompt if isinstance(prompt, str) else str(prompt)


@dataclass(frozen=True)
class EngineState:
    """One engine of a model."""

    weights: str  # folder that they were taken over from; empty for those it started with
    unfinished: int  # requests that it works on


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
