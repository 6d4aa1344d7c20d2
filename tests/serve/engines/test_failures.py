"""An answer that the engine gave up: whose fault it is."""

from __future__ import annotations

from typing import Any

import pytest

from serve.engines.failures import abandoned, has_form, is_error
from serve.replies import EngineRequest

TOOL = {"type": "function", "function": {"name": "lookup"}}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, False),
        ({"response_format": {"type": "text"}}, False),
        ({"response_format": {"type": "json_object"}}, True),
        ({"structured_outputs": {"regex": "a"}}, True),
        ({"text": {"format": {"type": "json_schema"}}}, True),
        ({"text": None}, False),
        ({"tools": [TOOL], "tool_choice": "none"}, False),
        ({"tools": [TOOL], "tool_choice": "required"}, True),
    ],
)
def test_the_forms_of_every_interface(body: dict[str, Any], expected: bool) -> None:
    assert has_form(body) is expected


def test_a_contradiction_is_the_clients_and_names_its_settings() -> None:
    body = {"response_format": {"type": "json_object"}, "min_tokens": 5, "allowed_token_ids": [1], "logit_bias": {}}
    refusal = abandoned(EngineRequest("chat", body))
    assert (refusal.status, refusal.param) == (400, "allowed_token_ids")
    assert "together with allowed_token_ids, min_tokens:" in refusal.message


@pytest.mark.parametrize("body", [{}, {"allowed_token_ids": [1]}, {"response_format": {"type": "json_object"}}])
def test_anything_else_is_a_failure(body: dict[str, Any]) -> None:
    assert abandoned(EngineRequest("chat", body)).status == 500


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ('data: {"error":{"message":"Internal server error"}}\n\n', True),
        ('event: error\ndata: {"type":"error"}\n\n', True),
        ('data: {"id":"chatcmpl-1","choices":[]}\n\n', False),
        ('event: message_start\ndata: {"type":"message_start"}\n\n', False),
        ("data: [DONE]\n\n", False),
    ],
)
def test_errors_in_a_stream(event: str, expected: bool) -> None:
    assert is_error(event) is expected
