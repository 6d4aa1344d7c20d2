"""Bounds on a request's tokens, of everything that the chat template writes."""

from __future__ import annotations

from typing import Any

from serve.gateway.cost import Cost, cost_of
from serve.replies import EngineRequest

ASK = [{"role": "user", "content": "头痛怎么办？"}]
TOOL = {"type": "function", "function": {"name": "lookup", "description": "查询科室" * 50}}


def cost(kind: Any = "chat", **body: Any) -> Cost:
    return cost_of(EngineRequest(kind, body, "r"), 4096, 64, 32)


def test_tools_count_as_part_of_the_prompt() -> None:
    plain, with_tools = cost(messages=ASK, max_tokens=8), cost(messages=ASK, max_tokens=8, tools=[TOOL])
    assert with_tools.most_prompt >= plain.most_prompt + 200 * 3  # bytes of the description
    assert with_tools.least_prompt > plain.least_prompt


def test_a_prompt_that_is_cut_costs_what_is_left_of_it() -> None:
    cut = cost("completions", prompt=[5] * 4000, max_tokens=1000, truncate_prompt_tokens=100)
    assert (cut.least_prompt, cut.most_prompt, cut.response) == (100, 100, 1000)


def test_a_call_without_text_has_a_cost() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "lookup", "arguments": "{}"}}
    turns = [{"role": "assistant", "content": None, "tool_calls": [call]}, *ASK]
    assert cost(messages=turns, max_tokens=1).most_prompt > cost(messages=ASK, max_tokens=1).most_prompt
    assert EngineRequest("chat", {"messages": turns}).affinity == ""
