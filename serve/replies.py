"""What gateway and replicas say to each other: plain data, so that neither needs the other's libraries."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal

PREFIX_CHARACTERS = 256

Kind = Literal["chat", "completions", "responses", "messages", "tokenize", "detokenize"]


@dataclass(frozen=True)
class Share:
    """Whose request it is, and what part of one engine that key may have."""

    key: str = ""
    weight: float = 1.0
    most: float = 1.0
    sequences: int = 1


@dataclass(frozen=True)
class EngineRequest:
    """A request to an engine, its body as vLLM's own request takes it."""

    kind: Kind
    body: dict[str, Any] = field(default_factory=dict)
    request_id: str = ""
    wants_usage: bool = False  # whether a stream passes on the event with the counts of tokens
    share: Share = Share()

    @property
    def affinity(self) -> str:
        """A digest of how the prompt begins: what later turns of a chat share with it, and with them a cached prefix.

        Of a chat's turns up to the first of the user, or of a prompt's first characters; empty where nothing is generated.
        """
        if "messages" in self.body:
            messages = self.body["messages"]
            begins = "\n".join(
                turn["content"] or "" for turn in messages[: 2 if messages[0]["role"] == "system" else 1]
            )
        else:
            begins = str(self.body.get("prompt") or self.body.get("input", ""))[:PREFIX_CHARACTERS]
        # A digest, as Serve may log what it routes by.
        return hashlib.sha256(begins.encode()).hexdigest() if begins else ""


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
    """Server-sent events of a stream, or none; the counts are of all tokens so far, 0 if they are not known."""

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
