"""Token counts of a running request, reported with the parts of its stream or on their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Any

from serve.replies import EngineRequest, Part, Reply

REPORT_S = 0.5  # interval at which counts are sent on their own while there is no other reply


class Progress:
    """The token counts of one request, read from vLLM's output processor."""

    def __init__(self, processor: Any, request: EngineRequest) -> None:
        """Initializes the counts to zero.

        Args:
            processor: vLLM's `OutputProcessor`, which runs in this process and holds the state of each sequence.
            request: the request whose tokens are counted.
        """
        self._processor, self._names = processor, _names(request)
        self._prompts: dict[str, int] = {}
        self._answers: dict[str, int] = {}

    def counts(self) -> tuple[int, int]:
        """Returns the prompt and response tokens so far, over all sequences; ended sequences keep their last count."""
        for name in self._names:
            for sequence in self._processor.external_req_ids.get(name, ()):
                state = self._processor.request_states.get(sequence)
                if state is not None:
                    self._prompts[name] = state.prompt_len
                    self._answers[sequence] = state.detokenizer.num_output_tokens()
        return sum(self._prompts.values()), sum(self._answers.values())


def id_of(request: EngineRequest) -> str:
    """Returns the id to pass to vLLM's handler; in the Responses API it is the id of the response."""
    return f"resp_{request.request_id}" if request.kind == "responses" else request.request_id


def _names(request: EngineRequest) -> list[str]:
    """Returns the ids under which vLLM's handlers run a request: one per prompt."""
    if request.kind == "responses":
        return [f"{id_of(request)}_0"]
    if request.kind in ("chat", "messages"):
        return [f"chatcmpl-{request.request_id}"]
    prompt = request.body["prompt"]
    prompts = 1 if isinstance(prompt, str) or isinstance(prompt[0], int) else len(prompt)
    return [f"cmpl-{request.request_id}-{index}" for index in range(prompts)]


async def reporting(
    replies: AsyncGenerator[Reply, None], counts: Callable[[], tuple[int, int]], interval_s: float = REPORT_S
) -> AsyncGenerator[Reply, None]:
    """Yields `replies`, with `counts` added to each part that has none.

    While there is no reply for `interval_s` seconds, yields parts that hold only counts. Closing this generator closes
    `replies`.
    """
    coming: asyncio.Task[Reply] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(replies))
            done, _ = await asyncio.wait({coming}, timeout=interval_s)
            if not done:
                yield Part("", *counts())
                continue
            try:
                reply = coming.result()
            except StopAsyncIteration:
                return
            coming = None
            yield _counted(reply, counts) if isinstance(reply, Part) else reply
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
        await replies.aclose()


def _counted(part: Part, counts: Callable[[], tuple[int, int]]) -> Part:
    if part.prompt_tokens:
        return part
    prompt, answer = counts()
    return replace(part, prompt_tokens=prompt, response_tokens=answer)
