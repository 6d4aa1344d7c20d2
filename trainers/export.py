"""Models as folders in Hugging Face format: checked before a stage reads them, written whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from cluster.paths import require_dir
from configs.errors import ConfigError
from data.chat import apply_settings, chat_ends, chat_format
from data.chat.config import ChatConfig
from data.chat.ends import GENERATION_CONFIG, eos_ids, write_ends
from data.durable import sync, writing


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`. Raises ConfigError where there is none, or none with an end mark."""
    path = require_dir(
        folder, "tokenizer folder", "write the sample clinic's with python -m data.clinic, or name yours"
    )
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: no tokenizer in Hugging Face format here; name a folder that has one") from error
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"{path}: the tokenizer has no end mark (eos_token); name one that has")
    return tokenizer


def load_chat_tokenizer(folder: str | Path, chat: ChatConfig) -> PreTrainedTokenizerBase:
    """Loads the tokenizer in `folder` with the chat template that the recipe's `chat` section asks for.

    Raises ConfigError where there is no tokenizer, or no chat template that can be used; see `data.chat.chat_format`.
    """
    tokenizer = load_tokenizer(folder)
    apply_settings(tokenizer, chat)
    chat_format(tokenizer)
    return tokenizer


def require_model(folder: str | Path, tokens: int, field: str) -> None:
    """Refuses what is no model, or one not made for sequences of `tokens` tokens, which `field` asks for.

    Looks at the folder only; the weights are read where they are needed.
    """
    path = require_dir(folder, "model folder", "name a folder in Hugging Face format, or run the stage that makes it")
    try:
        settings = json.loads((path / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: no readable config.json; name a folder in Hugging Face format") from error
    if not [*path.glob("*.safetensors"), *path.glob("*.bin")]:
        raise ConfigError(f"{path}: no weights (*.safetensors, *.bin) here; name a folder in Hugging Face format")
    context = settings.get("max_position_embeddings", tokens)
    if tokens > context:
        raise ConfigError(f"{field} {tokens} exceeds the {context} tokens that the model in {path} is made for")


def export_model(folder: Path, tokenizer: PreTrainedTokenizerBase, write: Callable[[Path], Any]) -> None:
    """Makes `folder` a model with its tokenizer; `write` puts the weights into a folder aside, then that is renamed.

    A language model's generation_config.json gets all tokens that end a response. When it has returned, the model is on
    the disk. Raises DiskError.
    """
    aside = folder.with_name(f"{folder.name}.new")
    with writing(aside):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        write(aside)
        tokenizer.save_pretrained(aside)
        if (aside / GENERATION_CONFIG).exists():  # a language model, not a reward model
            write_ends(aside, _ends(tokenizer, aside))
        for path in [*aside.rglob("*"), aside]:
            sync(path)
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
        sync(folder.parent)


def _ends(tokenizer: PreTrainedTokenizerBase, folder: Path) -> tuple[int, ...]:
    """Returns all tokens that end a response; without the chat template's where pretraining keeps one that cannot be used."""
    try:
        return chat_ends(tokenizer, folder)
    except ConfigError as error:
        print(f"export: generation_config.json has the tokenizer's end only: {error}", flush=True)
        return eos_ids(tokenizer, folder)
