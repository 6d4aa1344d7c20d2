"""Reads a small JSON file, such as a model's config.json, whose content is one object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from configs.errors import ConfigError


def read_json_object(path: Path, advice: str, what: str = "") -> dict[str, Any]:
    """Returns the content of a JSON file.

    Args:
        path: the file, in UTF-8.
        advice: what the user can do about an invalid file, for the message.
        what: purpose of the file; if given, the message begins with it.

    Raises:
        ConfigError: the file cannot be read, is not JSON, or is not a JSON object.
    """
    label = f"{what}: {path}" if what else str(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{label}: not readable as JSON: {error}; {advice}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{label}: is not a JSON object; {advice}")
    return content
