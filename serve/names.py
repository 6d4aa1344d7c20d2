"""Validation of the endpoint's model names."""

from __future__ import annotations

import re

from configs.errors import ConfigError

LONGEST = 64
_NAME = re.compile(rf"\w[\w.-]{{0,{LONGEST - 1}}}")


def require_name(name: str, argument: str) -> None:
    """Rejects a name that cannot be used in routes such as `/v1/models/NAME`, in deployment names, and in metrics.

    Args:
        name: the model's name.
        argument: the argument that contains it, for the error message.

    Raises:
        ConfigError: the name contains characters such as slashes, spaces, or control characters, or has more than
            `LONGEST` characters.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{argument}: {name!r} cannot be a model's name: give NAME=DIR, NAME of letters, digits, '_', '-' and '.', "
            f"not '-' or '.' at its beginning, at most {LONGEST} characters"
        )
