"""Models as folders in Hugging Face format: checked before a stage reads them, written whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from actors.modeling.checks import read_config, require_rows, require_trainable
from actors.modeling.source import model_dir, tokenizer_dir
from configs.errors import ConfigError
from data.durable import sync, writing
from data.hf_tokenizer import read_tokenizer


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """Reads the tokenizer in `folder`, a path or a Hub id.

    Raises:
        ConfigError: there is none, none with an end mark, or one with more tokens than the model beside it has rows.
    """
    path = tokenizer_dir(folder, "tokenizer folder")
    tokenizer = read_tokenizer(path)
    if (path / "config.json").is_file():
        require_rows(tokenizer, read_config(path, str(path)), str(path))
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"{path}: the tokenizer has no end mark (eos_token); name one that has")
    return tokenizer


def require_model(folder: str | Path, tokens: int, field: str) -> None:
    """Refuses what cannot be trained: no model, a quantized one, or one with a context of less than `tokens` tokens.

    `folder` is a path or a Hub id, whose weights are downloaded; `field` is the setting that asks for the tokens.
    """
    path = model_dir(folder, "model folder")
    require_context(path, tokens, field)


def require_context(path: Path, tokens: int, field: str) -> None:
    """As `require_model`, for the folder of a model; looks at its config.json only."""
    settings = read_config(path, "model folder")
    require_trainable(settings, path, "model folder")
    context = settings.get("max_position_embeddings") or tokens
    if tokens > context:
        raise ConfigError(f"{field} {tokens} exceeds the {context} tokens that the model in {path} is made for")


def export_model(folder: Path, tokenizer: PreTrainedTokenizerBase, write: Callable[[Path], Any]) -> None:
    """Makes `folder` a model with its tokenizer; `write` puts the weights into a folder aside, then that is renamed.

    When it has returned, the model is on the disk. Raises DiskError.
    """
    aside = folder.with_name(f"{folder.name}.new")
    with writing(aside):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        write(aside)
        tokenizer.save_pretrained(aside)
        for path in [*aside.rglob("*"), aside]:
            sync(path)
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
        sync(folder.parent)
