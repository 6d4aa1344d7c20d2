"""The tokenizer behind /tokenize and /detokenize, and the error message for a request that exceeds the context."""

from __future__ import annotations

import json
from typing import Any

from actors.model_folder.folders import ModelFolder
from data.chat.render import render, tokenize
from data.tables import DataError
from serve.replies import EngineRequest, Refusal, Whole


class Tokens:
    """A tokenizer that encodes as the engine does: text unchanged, a chat as rendered by its template."""

    def __init__(self, model: ModelFolder, context: int) -> None:
        self._tokenizer, self._context = model.tokenizer, context

    def answer(self, request: EngineRequest) -> Whole | Refusal:
        """Returns the reply to a `tokenize` or `detokenize` request, in vLLM's format."""
        body = request.body
        try:
            reply: dict[str, Any] = self._decode(body["tokens"]) if request.kind == "detokenize" else self._encode(body)
        except DataError as error:
            return Refusal(400, str(error))
        tokens = body["tokens"] if request.kind == "detokenize" else reply["tokens"]
        return Whole(json.dumps(reply, ensure_ascii=False), len(tokens), 0)

    def too_long(self, request: EngineRequest) -> Refusal:
        """Returns the error for a request whose prompt and response exceed the context, with the prompt's length."""
        body = request.body
        try:
            longest = max(len(self._ids(prompt, body)) for prompt in _prompts(request))
        except DataError as error:
            return Refusal(400, str(error), "messages")
        name = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
        room, asked = self._context - longest, body.get(name)
        if room > 0 and asked is not None:
            return Refusal(
                400,
                f"The prompt has {longest:,} tokens, {name} is {asked:,}, and the context is {self._context:,}: request at most "
                f"{room:,}.",
                name,
            )
        message = f"The prompt has {longest:,} tokens and the context is {self._context:,}, including the response: shorten it."
        return Refusal(400, message, "messages" if "messages" in body else "prompt")

    def _ids(self, prompt: Any, body: dict[str, Any]) -> list[int]:
        if isinstance(prompt, str):
            ids: list[int] = self._tokenizer.encode(prompt, add_special_tokens=body.get("add_special_tokens", True))
            return ids
        if isinstance(prompt[0], int):
            return list(prompt)
        continued = body.get("continue_final_message", False)
        arguments = {
            **(body.get("chat_template_kwargs") or {}),
            **({"tools": body["tools"]} if body.get("tools") else {}),
            **({"continue_final_message": True} if continued else {}),
        }
        opened = body.get("add_generation_prompt", not continued)
        text = render(self._tokenizer, list(map(_for_template, prompt)), opened, **arguments)
        return tokenize(self._tokenizer, text).ids

    def _encode(self, body: dict[str, Any]) -> dict[str, Any]:
        ids = self._ids(body.get("messages") or body["prompt"], body)
        names = self._tokenizer.convert_ids_to_tokens(ids) if body.get("return_token_strs") else None
        return {"count": len(ids), "max_model_len": self._context, "tokens": ids, "token_strs": names}

    def _decode(self, ids: list[int]) -> dict[str, Any]:
        size = len(self._tokenizer)
        for token in ids:
            if token >= size:
                raise DataError(f"the token {token} is not in the vocabulary, which has {size}")
        return {"prompt": self._tokenizer.decode(ids)}


def _prompts(request: EngineRequest) -> list[Any]:
    if "messages" in request.body:
        return [request.body["messages"]]
    prompts = request.body["prompt"]
    return [prompts] if isinstance(prompts, str) or isinstance(prompts[0], int) else prompts


def _for_template(message: dict[str, Any]) -> dict[str, Any]:
    """Returns a turn as vLLM passes it to the template: tool-call arguments as objects, not JSON text."""
    if not message.get("tool_calls"):
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"] or "{}")}}
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}
