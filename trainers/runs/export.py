"""Model folders in Hugging Face format: checks before a stage reads them, and atomic export."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from actors.model_folder.checks import (
    is_scorer,
    require_one_output,
    require_rows,
    require_scorer,
    require_trainable,
)
from actors.model_folder.config_json import CONFIG, read_config, transformers_config
from actors.model_folder.generation import require_readable
from actors.model_folder.source import model_dir, tokenizer_dir
from configs.errors import ConfigError
from data.chat import apply_settings, chat_ends, chat_format
from data.chat.config import ChatConfig
from data.chat.ends import GENERATION_CONFIG, eos_ids, write_ends
from data.tokenizer.hf_tokenizer import read_tokenizer
from storage.durable import sync, writing

logger = logging.getLogger(__name__)


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """Reads the tokenizer in `folder`, a path or a Hub id.

    Raises:
        ConfigError: there is no tokenizer, it has no `eos_token`, or it has more tokens than the model in the same
            folder has embedding rows.
    """
    path = tokenizer_dir(folder, "tokenizer folder")
    tokenizer = read_tokenizer(path)
    if (path / CONFIG).is_file():
        require_rows(tokenizer, read_config(path, str(path)), str(path))
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"{path}: the tokenizer has no end token (eos_token); use one that has")
    return tokenizer


def load_chat_tokenizer(folder: str | Path, chat: ChatConfig) -> PreTrainedTokenizerBase:
    """Loads the tokenizer in `folder` with the chat template that the recipe's `chat` section selects.

    Raises:
        ConfigError: there is no tokenizer or no usable chat template; see `data.chat.chat_format`.
    """
    tokenizer = load_tokenizer(folder)
    apply_settings(tokenizer, chat)
    chat_format(tokenizer)
    return tokenizer


Kind = Literal["language", "scorer", "either"]
"""Which models a setting accepts: language models, reward models, or either. Reward models must have one output."""


def require_model(
    name: str | Path, tokens: int, field: str, key: str = "model folder", kind: Kind = "language"
) -> Path:
    """Checks that a stage can start from a model, and returns the model's folder.

    Args:
        name: a path; a Hub id, whose weights are downloaded; or a PEFT adapter, which is merged.
        tokens: longest sequence, in tokens.
        field: the setting that determines `tokens`.
        key: the setting that names the model.
        kind: the kind of model required.

    Raises:
        ConfigError: the model does not exist, cannot be loaded by Transformers, is quantized, is of another kind, has
            an architecture that does not support packed sequences, has a context of less than `tokens` tokens, or has
            weights that do not match its config.json.
    """
    from actors.model_folder.completeness import require_complete  # imports Transformers' models

    path = model_dir(name, key)
    require_config(path, tokens, field, key, kind)
    if kind != "language":
        require_one_output(path, key)
    require_complete(path, key)
    return path


def require_config(path: Path, tokens: int, field: str, key: str, kind: Kind) -> None:
    """Makes the checks of `require_model` that need only the configuration files of the folder `path`.

    Raises:
        ConfigError: the model cannot be used; see `require_model`.
    """
    from actors.modeling.selfcheck import check_packing  # imports Transformers' models

    config = read_config(path, key)
    require_trainable(config, path, key)
    if kind == "scorer":
        require_scorer(config, path, key)
    if kind == "language" and is_scorer(config):
        raise ConfigError(f"{key}: {path} is a reward model; name a language model")
    check_packing(transformers_config(path, key), key)
    require_readable(path, key)
    context = config.get("max_position_embeddings") or tokens
    if tokens > context:
        raise ConfigError(f"{field} {tokens} exceeds the context of {context} tokens of the model in {path}; lower it")


def export_model(folder: Path, tokenizer: PreTrainedTokenizerBase, write: Callable[[Path], Any]) -> None:
    """Writes a model and its tokenizer to `folder`: first to a temporary folder, synced to disk, then renamed.

    For a language model, generation_config.json lists all tokens that end a response.

    Args:
        folder: the target folder, which is replaced.
        write: writes the weights and config to a given folder.

    Raises:
        DiskError: the folder cannot be written.
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
    """Returns all tokens that end a response.

    If the chat template is unusable, as it may be after pretraining, these are the tokens that the tokenizer and
    generation_config.json specify.
    """
    try:
        return chat_ends(tokenizer, folder)
    except ConfigError as error:
        logger.warning("generation_config.json gets only the tokenizer's end token: %s", error)
        return eos_ids(tokenizer, folder)
