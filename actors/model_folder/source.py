"""Resolves a model's name (local folder, Hub repository, or PEFT adapter) to a local folder to load from.

A name is a path (`runs/...` is resolved) or `org/name[@revision]`; a local folder takes precedence. Repositories are
downloaded from the Hugging Face Hub, or from ModelScope with `CHIMED_HUB=modelscope`.
"""

from __future__ import annotations

import os
from pathlib import Path

from actors.model_folder.adapters import ADAPTER_CONFIG, adapter_base, is_adapter, merged_dir
from actors.model_folder.checks import require_supported
from actors.model_folder.weights import tensor_shapes, weight_names
from configs.errors import ConfigError
from data.hub import Repository, cached, download, files_of, parse_model, pinned
from storage.paths import require_dir, resolve

HUB_VARIABLE = "CHIMED_HUB"
HINT = "name a folder in Hugging Face format, a model of the Hub as org/name, or run the stage that makes it"
_SMALL = (".json", ".jinja", ".model", ".txt", ".tiktoken")


def model_dir(name: str | Path, what: str = "model") -> Path:
    """Returns the local folder with config, weights, and tokenizer of the model `name`.

    Downloads what is not in the cache, and merges an adapter into its base model.

    Args:
        name: a path or `org/name[@revision]`.
        what: purpose of the model, for messages, e.g. "reward.model".

    Raises:
        ConfigError: the model does not exist, is incomplete, or cannot be loaded by Transformers.
    """
    repository = repository_of(name)
    folder = require_dir(name, what, HINT) if repository is None else snapshot(repository, what, weights=False)
    if is_adapter(folder):
        return merged_dir(folder if repository is None else snapshot(repository, what), what, model_dir)
    if (folder / ADAPTER_CONFIG).is_file():  # Transformers would apply the adapter, engines would not
        raise ConfigError(
            f"{what}: {folder} has both a model and a PEFT adapter ({ADAPTER_CONFIG}); remove one of them"
        )
    require_supported(folder, what)
    if repository is not None:
        folder = snapshot(repository, what)
    tensor_shapes(folder, what)  # rejects weights that are missing or truncated
    return folder


def config_dir(name: str | Path, what: str = "model") -> Path:
    """Returns the local folder with config.json of the model `name`; downloads no weights.

    For an adapter, returns that of its base model.

    Raises:
        ConfigError: the model cannot be found, or the adapter names no base model.
    """
    repository = repository_of(name)
    folder = require_dir(name, what, HINT) if repository is None else snapshot(repository, what, weights=False)
    return config_dir(*adapter_base(folder, what)) if is_adapter(folder) else folder


def tokenizer_dir(name: str | Path, what: str = "tokenizer") -> Path:
    """Returns the local folder with the tokenizer of the model `name`; downloads no weights.

    For an adapter without a tokenizer, returns the folder of its base model's tokenizer.

    Raises:
        ConfigError: the model cannot be found, or the adapter names no base model.
    """
    repository = repository_of(name)
    folder = require_dir(name, what, HINT) if repository is None else snapshot(repository, what, weights=False)
    if is_adapter(folder) and not any(folder.glob("tokenizer*")):
        return tokenizer_dir(*adapter_base(folder, what))
    return folder


def local_dir(name: str | Path) -> Path | None:
    """Returns the folder with those files of the model `name` that are on this machine; sends no request.

    Returns None if the folder does not exist, nothing of the repository has been downloaded, or models come from
    ModelScope.
    """
    if (folder := resolve(name)).is_dir():
        return folder
    repository = repository_of(name)
    return None if repository is None or uses_modelscope() else cached(repository)


def repository_of(name: str | Path) -> Repository | None:
    """Returns the repository that `name` refers to; None if it does not have the form of a repository's name.

    A path that exists locally takes precedence: the result is then None, too.
    """
    if resolve(name).exists():
        return None
    return parse_model(str(name))


def uses_modelscope() -> bool:
    """Returns whether models are downloaded from ModelScope.

    Raises:
        ConfigError: the environment variable has an unknown value.
    """
    hub = os.environ.get(HUB_VARIABLE, "huggingface")
    if hub not in ("huggingface", "modelscope"):
        raise ConfigError(f"{HUB_VARIABLE}={hub}: is no hub; set it to huggingface or modelscope")
    return hub == "modelscope"


def snapshot(repository: Repository, what: str, weights: bool = True) -> Path:
    """Downloads the small files of a model's repository and, optionally, its weights; returns the local folder.

    Raises:
        ConfigError: the repository or a file cannot be downloaded, `CHIMED_HUB` has an unknown value, or the package
            modelscope is missing.
    """
    if uses_modelscope():
        return _from_modelscope(repository, what, weights)
    try:
        repository = pinned(repository)
        files = files_of(repository)
        small = [file for file in files if "/" not in file and file.endswith(_SMALL)]
        return download(repository, sorted({*small, *(weight_names(files) if weights else ())}))
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from error


def _from_modelscope(repository: Repository, what: str, weights: bool) -> Path:
    try:
        from modelscope import snapshot_download
    except ImportError as error:
        raise ConfigError(f"{HUB_VARIABLE}=modelscope needs the package: pip install modelscope") from error
    patterns = [f"*{suffix}" for suffix in _SMALL] + (["*.safetensors", "pytorch_model*.bin"] if weights else [])
    try:
        return Path(snapshot_download(repository.name, revision=repository.revision, allow_patterns=patterns))
    except Exception as error:
        raise ConfigError(f"{what}: model {repository} on ModelScope: {error}") from error
