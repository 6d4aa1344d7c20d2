"""Instructor: a Pydantic model by each of its modes that force the form."""

from __future__ import annotations

from typing import Any, Literal

import instructor
import openai
from probing import ASK, Endpoint, check_form, run
from pydantic import BaseModel


class Triage(BaseModel):
    """Where a patient goes."""

    department: Literal["内科", "外科"]
    urgent: bool


def formed(endpoint: Endpoint, mode: instructor.Mode, **more: Any) -> None:
    client = openai.OpenAI(base_url=endpoint.v1, api_key=endpoint.key, max_retries=0)
    answer = instructor.from_openai(client, mode=mode).chat.completions.create(
        model=endpoint.model, messages=ASK, response_model=Triage, max_retries=0, max_tokens=120, **more
    )
    check_form(answer.model_dump())


def json_schema(endpoint: Endpoint) -> None:
    formed(endpoint, instructor.Mode.JSON_SCHEMA)


def tools(endpoint: Endpoint) -> None:
    formed(endpoint, instructor.Mode.TOOLS, logit_bias=endpoint.short_calls)


run("instructor", {"json_schema": json_schema, "tools": tools})
