"""API keys with names, limits, weights, and expiry. Only their SHA-256 digests leave the process that reads them."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from configs.base import Section
from configs.errors import ConfigError
from configs.recipe import Recipe, read_recipe
from data.files.records import text_lines
from serve.errors import ApiError
from storage.paths import require_file

logger = logging.getLogger(__name__)

VARIABLE = "CHIMED_API_KEYS"
WITHOUT_KEYS: Mapping[str, str] = {VARIABLE: ""}
"""Environment of replicas, without keys: the raylet may have inherited them from the shell that started it."""
SHORTEST = 16  # characters; a shorter key could be guessed, or found from its digest
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Key:
    """An API key as the gateway knows it. Where a limit is None, the endpoint's limit applies."""

    name: str
    digest: str = ""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    weight: float = 1.0
    expires: float | None = None  # Unix time, seconds


ANYBODY = Key("anybody")
"""The key assigned to every request of an endpoint without keys."""


class KeyConfig(Section):
    """One key of a key file."""

    key: str = Field("", description="the key itself; alternative to sha256")
    sha256: str = Field(
        "", pattern="^([0-9a-f]{64})?$", description="hexadecimal SHA-256 digest of the key; alternative to key"
    )
    requests_per_minute: int | None = Field(
        None, ge=0, description="requests per minute; overrides limits.requests_per_minute"
    )
    tokens_per_minute: int | None = Field(
        None, ge=0, description="tokens per minute; overrides limits.tokens_per_minute"
    )
    weight: float = Field(
        1.0, gt=0, le=1000, description="relative weight in fair queueing while requests of other keys are queued"
    )
    expires: str = Field(
        "", description="expiry: a date such as 2027-01-31 (end of that day, UTC), or a time with a time zone"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> KeyConfig:
        if bool(self.key) == bool(self.sha256):
            raise ValueError("needs either key or sha256")
        _expiry(self.expires)
        return self

    def known_as(self, name: str, where: str) -> Key:
        """Converts these settings to a key as the gateway knows it.

        Args:
            name: the key's name.
            where: file and line, for error messages.

        Raises:
            ConfigError: the key is too short, or not printable ASCII without spaces.
        """
        digest = self.sha256 or _checked_digest(self.key, where)
        limits = (self.requests_per_minute, self.tokens_per_minute)
        return Key(name, digest, *limits, self.weight, _expiry(self.expires))


def read_keys(file: str) -> list[Key]:
    """Reads the keys in `$CHIMED_API_KEYS`, separated by commas, and in `file`: YAML with names, or one key per line.

    Removes the variable from this process's environment, so that processes started later do not inherit it.

    Raises:
        ConfigError: `file` cannot be read or contains no keys, a key is too short or not printable ASCII without
            spaces, or a YAML file contains a key twice.
    """
    keys = [_nameless(text, VARIABLE) for text in os.environ.pop(VARIABLE, "").split(",") if text.strip()]
    if file:
        _warn_if_readable(Path(file))
        found = _from_yaml(file) if Path(file).suffix in (".yaml", ".yml") else _from_lines(file)
        if not found:
            raise ConfigError(f"{file}: contains no API keys; add one, or remove api_keys_file")
        keys += found
    return list({key.digest: key for key in keys}.values())


def _warn_if_readable(path: Path) -> None:
    """Logs a warning if other users of this machine can read the keys."""
    if path.is_file() and (mode := path.stat().st_mode) & (stat.S_IRGRP | stat.S_IROTH):
        logger.warning("%s: other users can read the API keys (mode %o); run chmod 600 %s", path, mode & 0o777, path)


def _from_lines(file: str) -> list[Key]:
    lines = text_lines(require_file(file, "api_keys_file", "give a file with one key per line, or a YAML file"))
    return [_nameless(line, f"{file}:{number}") for number, line in lines if line.strip() and not line.startswith("#")]


def _from_yaml(file: str) -> list[Key]:
    recipe = read_recipe(require_file(file, "api_keys_file", "give a YAML file with keys by name"), file)
    given = recipe.values.get("keys")
    if set(recipe.values) != {"keys"} or not isinstance(given, dict):
        raise ConfigError(f"{file}: a key file has one mapping, `keys:`, with each key's settings by its name")
    keys = [_from_settings(name, values, recipe) for name, values in given.items()]
    names: dict[str, str] = {}
    for key in keys:
        if key.digest in names:
            raise ConfigError(
                f"{recipe.where(('keys', key.name))}: {key.name} is the same key as {names[key.digest]}: remove one"
            )
        names[key.digest] = key.name
    return keys


def _from_settings(name: str, values: Any, recipe: Recipe) -> Key:
    where = f"{recipe.where(('keys', name))}: {name}"
    if not NAME.fullmatch(name):
        raise ConfigError(f"{where}: a key's name has up to 64 letters, digits, '.', '_' and '-'")
    try:
        return KeyConfig.model_validate_json(json.dumps(values)).known_as(name, where)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = "".join(f".{part}" for part in problem["loc"])
        # The message quotes no given text: otherwise a key under a misspelled name would be logged.
        found = f", not {problem['input']}" if isinstance(problem["input"], (int, float)) else ""
        text = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        if problem["type"] == "extra_forbidden":
            text, found = f"is not a setting of a key; use {', '.join(KeyConfig.model_fields)}", ""
        raise ConfigError(f"{where}{field}: {text}{found}") from None


def _nameless(text: str, where: str) -> Key:
    digest = _checked_digest(text.strip(), where)
    return Key(digest[:8], digest)


def _checked_digest(key: str, where: str) -> str:
    if len(key) < SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"{where}: an API key has {SHORTEST} or more printable ASCII characters and no spaces")
    return _digest(key)


def _expiry(text: str) -> float | None:
    if not text:
        return None
    try:
        time_ = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"expires: {text!r} is not a date such as 2027-01-31") from None
    if "T" not in text and " " not in text:
        time_ = time_.replace(hour=23, minute=59, second=59, tzinfo=UTC)
    if time_.tzinfo is None:
        raise ValueError(f"expires: {text!r} has no time zone; write 2027-01-31T18:00+08:00")
    return time_.timestamp()


def to_plain(keys: Sequence[Key]) -> list[dict[str, Any]]:
    """Converts keys, as digests, to JSON- and YAML-compatible values for a deployment's `user_config`."""
    return [{name: value for name, value in asdict(key).items() if value is not None} for key in keys]


def from_plain(keys: Sequence[Mapping[str, Any]]) -> list[Key]:
    """Converts values returned by `to_plain` back to keys."""
    return [Key(**key) for key in keys]


class Keyring:
    """The endpoint's keys; finds the key of a request."""

    def __init__(self, keys: Sequence[Key], clock: Callable[[], float] = time.time) -> None:
        self._keys, self._clock = list(keys), clock

    def replace(self, keys: Sequence[Key]) -> None:
        """Replaces the keys. Running requests are not affected."""
        self._keys = list(keys)

    @property
    def is_empty(self) -> bool:
        """Whether the endpoint has no keys, and therefore accepts local requests only."""
        return not self._keys

    @property
    def is_shared(self) -> bool:
        """Whether several keys share the engines."""
        return len(self._keys) > 1

    def holder(self, authorization: str | None) -> Key:
        """Returns the key in an `Authorization` header; `ANYBODY` if the endpoint has no keys.

        Raises:
            ApiError: 401 for a missing, wrong, or expired key.
        """
        if self.is_empty:
            return ANYBODY
        scheme, _, text = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not text.strip():
            raise ApiError(
                401, "An API key is missing: send it as 'Authorization: Bearer KEY'.", code="missing_api_key"
            )
        digest = _digest(text.strip())
        # Compares every digest in constant time, so that the duration reveals nothing about the keys.
        matches = [key for key in self._keys if hmac.compare_digest(digest, key.digest)]
        if not matches:
            raise ApiError(401, "This API key is invalid.", code="invalid_api_key")
        key = matches[0]
        if key.expires is not None and key.expires < self._clock():
            raise ApiError(401, f"The API key '{key.name}' has expired: request a new one.", code="expired_api_key")
        return key


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
