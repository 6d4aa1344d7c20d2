"""The tokens that end a response, and generation_config.json, where Transformers and vLLM look for them."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

from configs.errors import ConfigError
from data.chat.format import chat_format
from data.files.json_object import read_json_object

GENERATION_CONFIG: Final = "generation_config.json"


def chat_ends(tokenizer: Any, folder: str | Path | None = None) -> tuple[int, ...]:
    """Returns the ids of all tokens that end a response.

    These are the ends of the assistant's turn in the chat template (none without a template), the tokenizer's EOS, and
    the EOS ids in the model folder's generation_config.json.

    Args:
        tokenizer: a Hugging Face tokenizer.
        folder: the model's folder; by default the one that the tokenizer was loaded from.

    Raises:
        ConfigError: the template's turns do not end with a token, or generation_config.json is not readable.
    """
    turn = chat_format(tokenizer).ends if tokenizer.chat_template else ()
    return tuple(dict.fromkeys([*turn, *eos_ids(tokenizer, folder)]))


def eos_ids(tokenizer: Any, folder: str | Path | None) -> tuple[int, ...]:
    """Returns the tokenizer's EOS id and the EOS ids in generation_config.json, without the chat template's turn ends.

    Args:
        tokenizer: a Hugging Face tokenizer.
        folder: the model's folder; by default the one that the tokenizer was loaded from.

    Raises:
        ConfigError: generation_config.json is not readable.
    """
    own = () if tokenizer.eos_token_id is None else (int(tokenizer.eos_token_id),)
    folder = folder if folder is not None else tokenizer.name_or_path  # empty if it was not loaded from a folder
    return tuple(dict.fromkeys([*own, *(configured_ends(Path(folder)) if folder else ())]))


def configured_ends(folder: Path) -> tuple[int, ...]:
    """Returns the `eos_token_id` of the folder's generation_config.json, one or several; empty if it has none.

    Raises:
        ConfigError: the file is not readable, or the value is neither a token id nor a list of token ids.
    """
    configured = read_generation_config(folder).get("eos_token_id")
    ids = configured if isinstance(configured, list) else [configured] if configured is not None else []
    if not all(type(id) is int and id >= 0 for id in ids):
        raise ConfigError(
            f"{folder}/{GENERATION_CONFIG}: eos_token_id {configured} must be a token id or a list of them"
        )
    return tuple(ids)


def without_end(ids: Sequence[int], ends: Collection[int]) -> list[int]:
    """Returns a response's tokens without the token that ended it, if it has one."""
    return list(ids[:-1] if ids and ids[-1] in ends else ids)


def read_generation_config(folder: Path) -> dict[str, Any]:
    """Returns the settings in the folder's generation_config.json; empty if the file does not exist.

    Raises:
        ConfigError: the file is unreadable or not a JSON object.
    """
    path = folder / GENERATION_CONFIG
    return read_json_object(path, "repair or remove it") if path.exists() else {}


def write_ends(folder: Path, ends: Sequence[int]) -> None:
    """Sets `eos_token_id` in the folder's generation_config.json, so that generation ends with any of `ends`."""
    settings = {**read_generation_config(folder), "eos_token_id": list(ends)}
    (folder / GENERATION_CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
