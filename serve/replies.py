"""Messages between the gateway and the replicas: plain data, so that neither imports the other's libraries."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal

PREFIX_CHARACTERS = 256

Kind = Literal["chat", "completions", "responses", "messages", "tokenize", "detokenize"]


@dataclass(frozen=True)
class Share:
    """The key of a request, and its share of one engine."""

    key: str = ""
    """The key's name."""
    weight: float = 1.0
    """The key's weight in fair queueing."""
    most: float = 1.0
    """Maximum fraction of the engine's sequences that one key may use."""
    sequences: int = 1
    """Sequences of this request."""


@dataclass(frozen=True)
class EngineRequest:
    """A request to an engine. Its body has the arguments of vLLM's request."""

    kind: Kind
    body: dict[str, Any] = field(default_factory=dict)
    request_id: str = ""
    wants_usage: bool = False  # whether a stream includes the usage event
    share: Share = Share()

    @property
    def affinity(self) -> str:
        """A digest of the prompt's beginning, by which requests with a common cached prefix are routed to one engine.

        It covers a chat's first turn (two turns if the first is a system turn), which later requests of the chat share,
        or the first `PREFIX_CHARACTERS` characters of a prompt. Empty if the body has none of these.
        """
        if "messages" in self.body:
            messages = self.body["messages"]
            begins = "\n".join(
                turn["content"] or "" for turn in messages[: 2 if messages[0]["role"] == "system" else 1]
            )
        else:
            begins = str(self.body.get("prompt") or self.body.get("input", ""))[:PREFIX_CHARACTERS]
        # A digest instead of the text, because Serve may log it.
        return hashlib.sha256(begins.encode()).hexdigest() if begins else ""


@dataclass(frozen=True)
class EngineState:
    """The state of one engine of a model."""

    weights: str  # folder of the loaded weights; empty for the weights that it started with
    unfinished: int  # number of unfinished requests


@dataclass(frozen=True)
class Whole:
    """A complete response, as JSON."""

    json: str
    prompt_tokens: int
    response_tokens: int


@dataclass(frozen=True)
class Part:
    """Server-sent events of a stream, possibly none. The counts cover all tokens so far; 0 if unknown."""

    events: str
    prompt_tokens: int
    response_tokens: int


@dataclass(frozen=True)
class Refusal:
    """An engine's error, with its HTTP status."""

    status: int
    message: str
    param: str | None = None


Reply = Whole | Part | Refusal
