"""The cost of a request, estimated before it runs: its number of sequences, and bounds on its tokens."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from serve.errors import ApiError
from serve.replies import EngineRequest

# Role and turn markers that a chat template adds: a generous bound, corrected once the engine has counted the prompt.
TEMPLATE_TOKENS, TURN_TOKENS = 32, 8
# Characters per token of a text that tokenizes well. Used only to reject requests that no rate limit can ever admit.
CHARACTERS_A_TOKEN = 8
_ASKED = ("max_completion_tokens", "max_output_tokens", "max_tokens")
COMPLETION_TOKENS = 16  # default max_tokens of a completion in OpenAI's API and in vLLM


@dataclass(frozen=True)
class Cost:
    """Bounds on one request. Token counts are totals over all its sequences."""

    sequences: int
    least_prompt: int
    most_prompt: int
    response: int

    @property
    def least(self) -> int:
        """Lower bound on the request's prompt tokens, plus the maximum number of response tokens."""
        return self.least_prompt + self.response

    @property
    def most(self) -> int:
        """Upper bound on the request's tokens."""
        return self.most_prompt + self.response


def cost_of(request: EngineRequest, context: int, sequences: int, characters_per_token: int) -> Cost:
    """Returns the cost bounds of a request to an engine.

    Args:
        request: the request.
        context: the model's context length, in tokens.
        sequences: maximum number of sequences per request.
        characters_per_token: maximum prompt length, in characters per token of the context.

    Raises:
        ApiError: 400 for too many sequences or too long a prompt.
    """
    body = request.body
    if request.kind == "detokenize":
        return Cost(1, len(body["tokens"]), len(body["tokens"]), 0)
    param, prompts = _prompts(body)
    answers = body.get("n") or 1
    if answers * len(prompts) > sequences:
        raise ApiError(
            400,
            f"{answers} responses to each of {len(prompts)} prompts are {answers * len(prompts)} sequences, and the "
            f"limit per request is {sequences}: send several requests.",
            param="n" if answers > 1 else param,
        )
    for prompt in prompts:
        if prompt.characters > context * characters_per_token:
            raise ApiError(
                400,
                f"The prompt has {prompt.characters:,} characters, and a prompt may have "
                f"{context * characters_per_token:,}, {characters_per_token} for each token of the context: shorten it.",
                param=param,
            )
    if cut := body.get("truncate_prompt_tokens"):
        prompts = [_Prompt(prompt.characters, min(prompt.least, cut), min(prompt.most, cut)) for prompt in prompts]
    least = sum(prompt.least for prompt in prompts)
    if request.kind == "tokenize":
        return Cost(1, least, sum(prompt.most for prompt in prompts), 0)
    most = sum(min(prompt.most, context) for prompt in prompts)
    asked = next((body[name] for name in _ASKED if body.get(name)), None)
    if asked is None and request.kind == "completions":
        asked = COMPLETION_TOKENS
    # Without max_tokens, a response may fill the context.
    response = sum(min(asked or context, max(0, context - prompt.least)) for prompt in prompts)
    return Cost(answers * len(prompts), least, most, answers * response)


def cost_of_texts(texts: Iterable[str]) -> Cost:
    """Returns the cost bounds of texts that are read but not continued, such as conversations to score."""
    prompts = [_text(text, TEMPLATE_TOKENS) for text in texts]
    return Cost(1, sum(prompt.least for prompt in prompts), sum(prompt.most for prompt in prompts), 0)


@dataclass(frozen=True)
class _Prompt:
    characters: int
    least: int  # tokens
    most: int


def _prompts(body: dict[str, Any]) -> tuple[str, list[_Prompt]]:
    """Returns the name of the body's prompt argument, and each prompt's size."""
    if "input" in body:  # OpenAI's responses
        text = "".join(_strings([body["input"], body.get("instructions"), body.get("tools")]))
        return "input", [_text(text, TEMPLATE_TOKENS + TURN_TOKENS * len(body["input"]))]
    if "messages" in body:
        text = "".join(_strings(body["messages"]))
        if body.get("tools"):  # the chat template renders them before the turns
            text += json.dumps(body["tools"], ensure_ascii=False)
        return "messages", [_text(text, TEMPLATE_TOKENS + TURN_TOKENS * len(body["messages"]))]
    prompt = body["prompt"]
    if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
        prompt = [prompt]
    return "prompt", [_text(each, 1) if isinstance(each, str) else _Prompt(0, len(each), len(each)) for each in prompt]


def _text(text: str, around: int) -> _Prompt:
    # With any tokenizer, a token covers at least one byte of UTF-8.
    return _Prompt(len(text), max(1, len(text) // CHARACTERS_A_TOKEN), len(text.encode("utf-8", "replace")) + around)


def _strings(value: Any) -> Iterable[str]:
    """Yields all strings in a chat's turns except their roles, including tool calls and content parts."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, each in value.items():
            if name != "role":
                yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
