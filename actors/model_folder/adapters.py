"""Merges PEFT adapters into their base models, once each, so that they can be used like any other model folder."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actors.model_folder.checks import HEAD, is_scorer, require_rows
from actors.model_folder.config_json import CONFIG, read_config
from actors.model_folder.weights import ADAPTER_WEIGHTS, shapes_in, weight_names
from configs.errors import ConfigError, first_line
from data.chat.ends import GENERATION_CONFIG
from data.files.json_object import read_json_object
from data.hub import parse_model
from data.tokenizer.hf_tokenizer import read_tokenizer
from storage.durable import sha256, writing
from storage.paths import resolve, runs_root

logger = logging.getLogger(__name__)

FOLDER = ".merged"  # below runs/, which all nodes of a cluster share
ADAPTER_CONFIG = "adapter_config.json"
_OF_TOKENIZER = ("tokenizer", "special_tokens_map", "added_tokens", "vocab", "merges", "chat_template")


def is_adapter(folder: Path) -> bool:
    """Returns whether a folder contains a PEFT adapter and no model."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / CONFIG).is_file()


def adapter_base(folder: Path, what: str) -> tuple[str, str]:
    """Returns the name of the adapter's base model, and its label for messages.

    Raises:
        ConfigError: adapter_config.json is not readable or names no base model.
    """
    settings = _settings(folder, what)
    name, revision = settings.get("base_model_name_or_path"), settings.get("revision")
    if not name:
        raise ConfigError(
            f"{what}: {folder / ADAPTER_CONFIG} has no base_model_name_or_path; write the base model's name there"
        )
    pinned = revision and not resolve(name).exists() and parse_model(f"{name}@{revision}") is not None
    return f"{name}@{revision}" if pinned else name, f"{what}: base model of the adapter {folder}"


def merged_dir(folder: Path, what: str, model_dir: Callable[[str, str], Path]) -> Path:
    """Merges an adapter into its base model with peft, and returns the folder of the merged model.

    The folder is created once and kept in runs/.merged. If the base model is on the Hub and has no revision, its newest
    commit at the time of merging is used.

    Args:
        folder: the adapter's folder.
        what: purpose of the model, for messages.
        model_dir: returns the folder of the base model, given its name and label.

    Raises:
        ConfigError: the adapter has no weights, its base model is missing, or the adapter does not fit it.
        DiskError: the merged model cannot be written.
    """
    weights = next((folder / name for name in ADAPTER_WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise ConfigError(f"{what}: no {' or '.join(ADAPTER_WEIGHTS)} in the adapter {folder}; save the adapter again")
    name, label = adapter_base(folder, what)
    merged = runs_root() / FOLDER / _key(folder, name)
    with writing(merged):
        merged.parent.mkdir(parents=True, exist_ok=True)
        lock = merged.with_suffix(".lock").open("w")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not merged.exists():
            base, aside = model_dir(name, label), merged.with_suffix(".new")
            logger.info("%s: merging the adapter %s into %s: %s", what, folder, base, merged)
            model = _merged(base, folder, weights, what)
            with writing(merged):
                shutil.rmtree(aside, ignore_errors=True)
                _write(model, base, folder, aside)
            require_rows(read_tokenizer(aside), read_config(aside, what), f"{what}: the adapter {folder}")
            aside.rename(merged)
    return merged


def _merged(base: Path, folder: Path, weights: Path, what: str) -> Any:
    """Loads the base model and merges the adapter, in the dtype of the base model's weights."""
    import transformers
    from peft import PeftModel

    from actors.model_folder.completeness import load_complete

    shapes = shapes_in(weights, what)
    task = _settings(folder, what).get("task_type") or "CAUSAL_LM"
    if task not in ("CAUSAL_LM", "SEQ_CLS"):
        raise ConfigError(f"{what}: the adapter {folder} is for {task}; name one for CAUSAL_LM or SEQ_CLS")
    try:
        if task == "CAUSAL_LM":
            model = load_complete(transformers.AutoModelForCausalLM.from_pretrained, base, dtype="auto")
        else:
            labels = next((shape[0] for key, shape in shapes.items() if key.endswith(HEAD)), 1)
            load = transformers.AutoModelForSequenceClassification.from_pretrained
            new = [] if is_scorer(read_config(base, what)) else [HEAD]
            model = load_complete(load, base, new, dtype="auto", num_labels=labels)
        rows = [shape[0] for key, shape in shapes.items() if key.endswith("embed_tokens.weight")]
        if (
            rows and rows[0] != model.get_input_embeddings().weight.shape[0]
        ):  # embeddings saved with the adapter, for new tokens
            model.resize_token_embeddings(rows[0], mean_resizing=False)
        return PeftModel.from_pretrained(model, folder).merge_and_unload()
    except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        reason = first_line(error)
        raise ConfigError(f"{what}: the adapter {folder} cannot be merged into {base}: {reason}") from error


def _write(model: Any, base: Path, folder: Path, out: Path) -> None:
    """Writes the merged model, together with the base model's other files, such as the tokenizer.

    The adapter's tokenizer files replace those of the same name.
    """
    out.mkdir()
    others = {*weight_names([path.name for path in base.iterdir()]), CONFIG, GENERATION_CONFIG}
    for source in (base, folder):
        for file in source.iterdir():
            if file.is_file() and file.name not in others and (source == base or file.name.startswith(_OF_TOKENIZER)):
                shutil.copyfile(file, out / file.name)
    model.save_pretrained(out)


def _settings(folder: Path, what: str) -> dict[str, Any]:
    return read_json_object(folder / ADAPTER_CONFIG, "save the adapter again", what)


def _key(folder: Path, base: str) -> str:
    """Returns the merged folder's name: a hash that changes whenever the adapter or its base model does.

    It covers the contents of the adapter's files and the base model's name. For a local base model, it also covers the
    names, sizes, and modification times of the files.
    """
    lines = [f"{sha256(file)}  {file.name}" for file in sorted(folder.iterdir()) if file.is_file()]
    local = resolve(base)
    if local.is_dir():
        found = [(file.name, file.stat()) for file in sorted(local.iterdir())]
        lines += [f"{name} {status.st_size} {status.st_mtime_ns}" for name, status in found]
    return hashlib.sha256("\n".join([base, *lines]).encode()).hexdigest()[:32]
