"""What all bodies have in common: unknown keys are refused, a null is as good as an absent key, and text is Unicode."""

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
"""Keys of OpenAI's clients that change no answer. They pass, and nothing is done with them: nothing is stored, either."""


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
"""Types of parts that are no text, of all three interfaces."""


def refuse_media(content: Any) -> Any:
    """`content` as it is, unless it has a part that is no text: what the alternatives of a type say of it explains nothing.

    Raises ValueError for the first such part.
    """
    for part in content if isinstance(content, list) else ():
        if isinstance(part, Mapping) and isinstance(kind := part.get("type"), str) and kind in MEDIA:
            raise ValueError(f"has a part of type {kind}, and the model reads text alone; leave it out")
    return content


@contextmanager
def as_one_fault() -> Iterator[None]:
    """Of what is wrong with an object that a validator makes, the first, as a validator may raise it."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        text = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{where}: {text}" if where else text) from None


class Part(BaseModel):
    """A JSON object in a body. A setting that does nothing would go unnoticed, so unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())

    REFUSED: ClassVar[Mapping[str, str]] = {}
    """Keys that clients know and this endpoint does not, with what to do instead."""

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
    """A whole body."""

    model: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_text(cls, body: Any) -> Any:
        try:
            json.dumps(body, ensure_ascii=False, default=str).encode()  # a body that is no JSON is left to be refused
        except UnicodeEncodeError:
            raise ValueError("The body names half of a surrogate pair (\\ud800 to \\udfff), which is no text") from None
        return body if not isinstance(body, dict) else {key: body[key] for key in body if key not in NEUTRAL}
