"""Corrects Anthropic's `stop_reason` of tool calls: vLLM sets `end_turn` if the request named the tool."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

_ENDED, _CALLED = "end_turn", "tool_use"


def name_tool_use(message: Any) -> Any:
    """Sets the `stop_reason` of a complete message from `end_turn` to `tool_use` if the message calls a tool."""
    if message.stop_reason == _ENDED and any(block.type == _CALLED for block in message.content):
        message.stop_reason = _CALLED
    return message


async def name_streamed_tool_use(events: AsyncIterator[str]) -> AsyncIterator[str]:
    """Yields the events of a streamed message, corrected as by `name_tool_use`.

    Args:
        events: server-sent events with one data line each.
    """
    called = False
    async for event in events:
        name, _, data = event.partition("\ndata: ")
        if name == "event: content_block_start":
            called = called or json.loads(data)["content_block"]["type"] == _CALLED
        if called and name == "event: message_delta" and (delta := json.loads(data))["delta"]["stop_reason"] == _ENDED:
            delta["delta"]["stop_reason"] = _CALLED
            event = f"{name}\ndata: {json.dumps(delta, ensure_ascii=False)}\n\n"
        yield event
