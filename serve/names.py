"""Which names a model of the endpoint may have."""

from __future__ import annotations

import re

from configs.errors import ConfigError

LONGEST = 64
_NAME = re.compile(rf"\w[\w.-]{{0,{LONGEST - 1}}}")


def require_name(name: str, argument: str) -> None:
    """Refuse a name that routes such as `/v1/models/NAME`, deployments or metrics could not carry.

    Raises:
        ConfigError: slashes, spaces, control characters and the like, or more than `LONGEST` characters.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{argument}: {name!r} cannot be a model's name: give NAME=DIR, NAME of letters, digits, '_', '-' and '.', "
            f"not '-' or '.' at its beginning, at most {LONGEST} characters"
        )
