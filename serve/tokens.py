"""A model's tokenizer behind /tokenize and /detokenize, and the exact length of a prompt that is too long."""

from __future__ import annotations

import json
from typing import Any

from actors.folders import ModelFolder
from data.chat import encode_prompt
from data.tables import DataError
from serve.replies import EngineRequest, Refusal, Whole


class Tokens:
    """Encodes as the engine does: text bare, a chat in the chat format."""

    def __init__(self, model: ModelFolder, context: int) -> None:
        self._tokenizer, self._context = model.tokenizer, context

    def answer(self, request: EngineRequest) -> Whole | Refusal:
        """The reply to a `tokenize` or `detokenize` request, in the shape that vLLM's has."""
        body = request.body
        try:
            reply: dict[str, Any] = self._decode(body["tokens"]) if request.kind == "detokenize" else self._encode(body)
        except DataError as error:
            return Refusal(400, str(error))
        tokens = body["tokens"] if request.kind == "detokenize" else reply["tokens"]
        return Whole(json.dumps(reply, ensure_ascii=False), len(tokens), 0)

    def too_long(self, request: EngineRequest) -> Refusal:
        """The refusal of a prompt that leaves no room for an answer."""
        prompts = request.body["prompt"] if request.kind == "completions" else [request.body["messages"]]
        if isinstance(prompts, str) or (prompts and isinstance(prompts[0], int)):
            prompts = [prompts]
        longest = max(len(self._ids(prompt)) for prompt in prompts)
        message = (
            f"The prompt has {longest:,} tokens and the context is {self._context:,}, answer included: shorten it."
        )
        return Refusal(400, message, "messages" if request.kind == "chat" else "prompt")

    def _ids(self, prompt: Any) -> list[int]:
        if isinstance(prompt, str):
            ids: list[int] = self._tokenizer.encode(prompt, add_special_tokens=False)
            return ids
        return prompt if isinstance(prompt[0], int) else encode_prompt(self._tokenizer, prompt)

    def _encode(self, body: dict[str, Any]) -> dict[str, Any]:
        ids = self._ids(body.get("messages") or body["prompt"])
        names = self._tokenizer.convert_ids_to_tokens(ids) if body.get("return_token_strs") else None
        return {"count": len(ids), "max_model_len": self._context, "tokens": ids, "token_strs": names}

    def _decode(self, ids: list[int]) -> dict[str, Any]:
        size = len(self._tokenizer)
        for token in ids:
            if token >= size:
                raise DataError(f"the token {token} is not in the vocabulary, which has {size}")
        return {"prompt": self._tokenizer.decode(ids)}
