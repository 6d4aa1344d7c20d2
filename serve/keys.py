"""API keys: who may ask. Only their SHA-256 digests leave the process that read them."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
from collections.abc import Sequence

from cluster.paths import require_file
from configs.errors import ConfigError
from data.files.records import text_lines
from serve.errors import ApiError

VARIABLE = "CHIMED_API_KEYS"
SHORTEST = 16  # characters: what a key needs so that neither guessing nor its digest gives it away
ANYBODY = "anybody"


def read_keys(file: str) -> list[str]:
    """Digests (hexadecimal SHA-256) of the keys in `$CHIMED_API_KEYS`, separated by commas, and in `file`, one a line.

    Raises:
        ConfigError: an unreadable file, or a key that is too short or not printable ASCII.
    """
    given = [(VARIABLE, key) for key in os.environ.get(VARIABLE, "").split(",")]
    if file:
        lines = text_lines(require_file(file, "api_keys_file", "give a file with a key a line"))
        given += [(f"{file}:{number}", line) for number, line in lines if not line.startswith("#")]
    digests = []
    for where, text in given:
        key = text.strip()
        if not key:
            continue
        if len(key) < SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigError(f"{where}: an API key has {SHORTEST} or more printable ASCII characters and no spaces")
        digests.append(_digest(key))
    if file and not digests:
        raise ConfigError(f"{file}: has no API key in it; write one a line, or leave out api_keys_file")
    return list(dict.fromkeys(digests))


class Keyring:
    """Tells who asks."""

    def __init__(self, digests: Sequence[str]) -> None:
        self._digests = list(digests)

    def holder(self, authorization: str | None, client: str | None) -> str:
        """A short name for the key in an `Authorization` header, for limits and logs; `anybody` where there are no keys.

        Args:
            client: address of the one who asks; without keys only this machine may.

        Raises:
            ApiError: 401 for a missing or wrong key, 403 for another machine where there are no keys.
        """
        if not self._digests:
            if not _is_loopback(client):
                raise ApiError(
                    403, f"This endpoint has no API keys, so it answers its own machine only: set {VARIABLE}."
                )
            return ANYBODY
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise ApiError(
                401, "An API key is missing: send it as 'Authorization: Bearer KEY'.", code="missing_api_key"
            )
        digest = _digest(key.strip())
        # Every digest is compared, each in constant time: how long it takes tells nothing about the keys.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if not any(matches):
            raise ApiError(401, "This API key is not one of the endpoint's.", code="invalid_api_key")
        return digest[:8]


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _is_loopback(client: str | None) -> bool:
    if client is None:
        return False
    try:
        return ipaddress.ip_address(client).is_loopback
    except ValueError:
        return False
