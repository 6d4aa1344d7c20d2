"""Reads a tokenizer from its folder in Hugging Face format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import ConfigError, first_line

_FILES = ("tokenizer_config.json", "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def has_tokenizer(folder: Path) -> bool:
    """Returns whether a model's folder contains a tokenizer."""
    return any((folder / name).is_file() for name in _FILES)


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Reads the tokenizer in `folder`; never runs custom code of the checkpoint.

    Raises:
        ConfigError: the folder has no tokenizer, or the installed Transformers and tokenizers cannot read it.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such folder; name a local folder with a tokenizer, not a Hub id")
    if not has_tokenizer(folder):
        raise ConfigError(
            f"{folder}: has no tokenizer ({', '.join(_FILES[1:])}); copy the tokenizer's files of the model that this one "
            "was trained from into the folder"
        )
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        reason = first_line(error)
        if "trust_remote_code" in str(error):
            reason = "it needs custom Python code (auto_map), which is not run (trust_remote_code is off)"
        if reason.startswith("Couldn't instantiate the backend tokenizer"):
            reason = "there is no vocabulary, such as tokenizer.json, with tokenizer_config.json"
        raise ConfigError(
            f"{folder}: no usable tokenizer: {reason}; name a folder in Hugging Face format that these releases of "
            f"transformers and tokenizers can read"
        ) from error
