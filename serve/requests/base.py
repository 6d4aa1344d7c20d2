"""Base classes of all request bodies: unknown keys are rejected, null counts as absent, and text is valid Unicode."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
TokenIds = Annotated[list[TokenId], Field(min_length=1)]

NEUTRAL: Final = frozenset(
    {
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
"""Keys of OpenAI's clients that do not affect the response. They are accepted and ignored; nothing is stored."""


MEDIA: Final = frozenset(
    {
        "audio",
        "audio_url",
        "document",
        "file",
        "image",
        "image_url",
        "input_audio",
        "input_file",
        "input_image",
        "video_url",
    }
)
"""Types of non-text parts in all three APIs."""


def refuse_media(content: Any) -> Any:
    """Returns `content` unchanged if it has no media parts.

    pydantic's own message about a media part, one error for each member of the union, does not explain the problem.

    Raises:
        ValueError: `content` has a media part; the message names its type.
    """
    for part in content if isinstance(content, list) else ():
        if isinstance(part, Mapping) and isinstance(kind := part.get("type"), str) and kind in MEDIA:
            raise ValueError(f"has a part of type {kind}, and the model accepts only text; remove it")
    return content


@contextmanager
def as_one_fault() -> Iterator[None]:
    """Converts the first error of a ValidationError to a ValueError, which a validator may raise."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        text = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{where}: {text}" if where else text) from None


class Part(BaseModel):
    """A JSON object in a body. Unknown keys are rejected, because a setting without effect would go unnoticed."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())

    REFUSED: ClassVar[Mapping[str, str]] = {}
    """Keys that clients may send and this endpoint does not support, with what to do instead."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        given = {key: item for key, item in value.items() if item is not None}
        for key, reason in cls.REFUSED.items():
            if key in given:
                raise ValueError(f"{key}: {reason}")
        return given


class Body(Part):
    """A request body."""

    model: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_text(cls, body: Any) -> Any:
        try:
            json.dumps(body, ensure_ascii=False, default=str).encode()  # other types are rejected later
        except UnicodeEncodeError:
            raise ValueError(
                "The body contains an unpaired surrogate (\\ud800 to \\udfff), which is not valid text"
            ) from None
        return body if not isinstance(body, dict) else {key: body[key] for key in body if key not in NEUTRAL}
