"""What is said of an answer that the engine gave up: the client's contradiction where there is one, else a failure."""

from __future__ import annotations

from typing import Any

from serve.replies import EngineRequest, Refusal

RESTRICTING = ("allowed_token_ids", "bad_words", "logit_bias", "min_tokens", "ignore_eos", "stop_token_ids")
"""Settings that take tokens away which the answer's form may need."""

# How an error in the midst of a stream looks, in OpenAI's interface and in Anthropic's.
_ERRORS = ('data: {"error":', "event: error\n")


def is_error(event: str) -> bool:
    """Whether a server-sent event of vLLM reports that it gave the answer up."""
    return event.startswith(_ERRORS)


def given_up(request: EngineRequest) -> Refusal:
    """The refusal of a request whose answer ended in an error.

    An engine ends an answer so when its form permits no token that the other settings leave: that is the client's to repair.
    """
    body = request.body
    taken = [name for name in RESTRICTING if body.get(name)]
    if taken and has_form(body):
        named = ", ".join(taken)
        return Refusal(
            400, f"No token satisfies the answer's form together with {named}: leave one of them out.", taken[0]
        )
    return Refusal(500, "The engine failed on this request; its log says why under the request id.")


def has_form(body: dict[str, Any]) -> bool:
    """Whether the body of a request constrains its answer: by a format, a grammar, or a tool that must be called."""
    format_ = body.get("response_format") or (body.get("text") or {}).get("format") or {}
    tools = body.get("tools") and body.get("tool_choice") not in (None, "none")
    return bool(body.get("structured_outputs") or format_.get("type", "text") != "text" or tools)
