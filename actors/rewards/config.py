"""Settings of rewards from Python functions and HTTP endpoints. Imports no HTTP client."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from configs.base import Section

SCORE_ROUTE = "/v1/score"
MOST_CONVERSATIONS = 256  # limit of one request to `SCORE_ROUTE`


class FunctionRewardConfig(Section):
    """A reward from a function in a Python file."""

    file: str = Field(min_length=1, description="path of the Python file")
    function: str = Field("reward", min_length=1, description="name of the function in the file")
    weight: float = Field(1.0, description="weight of the rewards in the sum of all sources")


class HttpRewardConfig(Section):
    """A reward from an HTTP endpoint."""

    url: str = Field(
        description="URL to which samples are posted; a path that ends in /v1/score gets the request format of "
        "`python -m serve`"
    )
    weight: float = Field(1.0, description="weight of the rewards in the sum of all sources")
    timeout_s: float = Field(30, gt=0, description="timeout of one request, in seconds, connecting included")
    retries: int = Field(
        3, ge=0, le=100, description="number of retries after a missing response, a 429, or a 5xx status"
    )
    batch_size: int = Field(64, ge=1, description="samples per request")
    concurrent: int = Field(4, ge=1, description="maximum number of concurrent requests")
    max_response_bytes: int = Field(
        2**22, ge=1024, description="maximum size of a response, in bytes; a larger one stops the run with an error"
    )
    api_key_variable: str = Field(
        "", description="name of the environment variable that holds the bearer key; never the key itself"
    )

    @property
    def takes_conversations(self) -> bool:
        """Whether the endpoint is that of `serve`, which scores complete conversations with a reward model."""
        return urlsplit(self.url).path.rstrip("/").endswith(SCORE_ROUTE)

    @field_validator("url")
    @classmethod
    def _can_be_asked(cls, url: str) -> str:
        import httpx  # slow import, needed only with an endpoint

        try:
            parsed = httpx.URL(url)
            parsed.host.encode("idna")
        except (httpx.InvalidURL, UnicodeError) as error:
            raise ValueError(f"is not a valid URL ({error}); give one like http://127.0.0.1:9000/reward") from None
        if parsed.scheme not in ("http", "https") or not parsed.host or (parsed.port or 0) > 65535:
            raise ValueError("is not an HTTP URL; give one like http://127.0.0.1:9000/reward")
        if parsed.userinfo:
            raise ValueError(
                "contains a user or password, which would appear in logs; use api_key_variable for the key"
            )
        return url

    @field_validator("api_key_variable")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if name and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError("is not the name of an environment variable; name the variable, never give the key itself")
        return name

    @model_validator(mode="after")
    def _batch_is_taken(self) -> HttpRewardConfig:
        if self.takes_conversations and self.batch_size > MOST_CONVERSATIONS:
            raise ValueError(
                f"batch_size {self.batch_size} is above the limit of {SCORE_ROUTE}; set it to at most "
                f"{MOST_CONVERSATIONS}"
            )
        return self
