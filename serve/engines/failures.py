"""The error for a response that the engine aborted: 400 if the request's settings contradict each other, else 500."""

from __future__ import annotations

from typing import Any

from serve.replies import EngineRequest, Refusal

RESTRICTING = ("allowed_token_ids", "bad_words", "logit_bias", "min_tokens", "ignore_eos", "stop_token_ids")
"""Settings that can forbid tokens that the response's constraint requires."""

# How an error event in a stream starts, in OpenAI's API and in Anthropic's.
_ERRORS = ('data: {"error":', "event: error\n")


def is_error(event: str) -> bool:
    """Returns whether a server-sent event of vLLM reports an aborted response."""
    return event.startswith(_ERRORS)


def abandoned(request: EngineRequest) -> Refusal:
    """Returns the refusal of a request whose response ended in an error.

    One cause is a constraint that permits none of the tokens that the request's other settings allow: the client must
    change the request, so the status is 400.
    """
    body = request.body
    taken = [name for name in RESTRICTING if body.get(name)]
    if taken and has_form(body):
        named = ", ".join(taken)
        return Refusal(
            400, f"No token satisfies the response's format together with {named}: remove one of them.", taken[0]
        )
    return Refusal(500, "The engine failed on this request; see the endpoint's log for the request id.")


def has_form(body: dict[str, Any]) -> bool:
    """Returns whether a request's body may constrain the response: by a format, a grammar, or `tool_choice`."""
    format_ = body.get("response_format") or (body.get("text") or {}).get("format") or {}
    tools = body.get("tools") and body.get("tool_choice") not in (None, "none")
    return bool(body.get("structured_outputs") or format_.get("type", "text") != "text" or tools)
