from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

from serve.engines.progress import Progress, reporting
from serve.replies import EngineRequest, Part, Reply, Whole


class Processor:
    """As vLLM's output processor: sequences by the id of their request, and the state of those that run."""

    def __init__(self) -> None:
        self.external_req_ids: dict[str, list[str]] = {}
        self.request_states: dict[str, Any] = {}

    def runs(self, request: str, sequence: str, prompt: int, written: int) -> None:
        if sequence not in self.external_req_ids.setdefault(request, []):
            self.external_req_ids[request].append(sequence)
        self.request_states[sequence] = SimpleNamespace(
            prompt_len=prompt, detokenizer=SimpleNamespace(num_output_tokens=lambda: written)
        )

    def ends(self, request: str, sequence: str) -> None:
        del self.request_states[sequence]
        self.external_req_ids[request].remove(sequence)


def test_tokens_of_all_sequences_also_of_those_that_have_ended() -> None:
    processor = Processor()
    progress = Progress(processor, EngineRequest("chat", {"messages": [], "n": 2}, "r-1"))
    assert progress.counts() == (0, 0)
    processor.runs("chatcmpl-r-1", "0_r-1", 12, 5)
    processor.runs("chatcmpl-r-1", "1_r-1", 12, 3)
    processor.runs("chatcmpl-r-2", "0_r-2", 50, 40)
    assert progress.counts() == (12, 8)
    processor.ends("chatcmpl-r-1", "0_r-1")
    processor.runs("chatcmpl-r-1", "1_r-1", 12, 9)
    assert progress.counts() == (12, 14)


def test_several_prompts_are_counted_one_by_one() -> None:
    for prompt, names in (("头痛", ["0"]), ([5, 6], ["0"]), (["头", "痛"], ["0", "1"]), ([[5], [6, 7]], ["0", "1"])):
        processor = Processor()
        for name in names:
            processor.runs(f"cmpl-r-{name}", f"cmpl-r-{name}-x", 3, 4)
        progress = Progress(processor, EngineRequest("completions", {"prompt": prompt}, "r"))
        assert progress.counts() == (3 * len(names), 4 * len(names))


async def said(replies: list[tuple[float, Reply]], interval_s: float) -> list[Reply]:
    """What `reporting` makes of replies, each after so many seconds, while 7 tokens more are written every time."""
    written = 0

    async def source() -> AsyncGenerator[Reply, None]:
        for pause_s, reply in replies:
            await asyncio.sleep(pause_s)
            yield reply

    def counts() -> tuple[int, int]:
        nonlocal written
        written += 7
        return 5, written

    return [reply async for reply in reporting(source(), counts, interval_s)]


def test_every_part_has_the_counts_so_far() -> None:
    parts: list[tuple[float, Reply]] = [(0, Part("a", 0, 0)), (0, Part("b", 0, 0)), (0, Part("end", 5, 20))]
    assert asyncio.run(said(parts, 1.0)) == [Part("a", 5, 7), Part("b", 5, 14), Part("end", 5, 20)]


def test_a_whole_response_is_preceded_by_counts() -> None:
    replies = asyncio.run(said([(0.25, Whole("{}", 5, 30))], 0.1))
    assert replies == [Part("", 5, 7), Part("", 5, 14), Whole("{}", 5, 30)]


def test_closing_ends_the_source_at_once() -> None:
    async def run() -> list[str]:
        ended = []

        async def source() -> AsyncGenerator[Reply, None]:
            try:
                yield Part("a", 0, 0)
                await asyncio.sleep(60)
            finally:
                ended.append("source")

        replies = reporting(source(), lambda: (1, 1), 0.01)
        await anext(replies)
        await anext(replies)
        await replies.aclose()
        return ended

    assert asyncio.run(run()) == ["source"]
