"""The model that a user named: a local folder, a repository of the Hub, or a PEFT adapter, as a folder to load from.

A name is a path (`runs/...` is resolved) or `org/name[@revision]`; a local folder of that name wins. Repositories come from
the Hugging Face Hub, or with `CHIMED_HUB=modelscope` from ModelScope.
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
    """The folder with the config, weights and tokenizer of the model that `name` names.

    Downloads what is not in the cache, and merges an adapter into its base.

    Args:
        what: what the model is for, as messages say it, e.g. "reward.model".

    Raises:
        ConfigError: no such model, one that is incomplete, or one that Transformers cannot load.
    """
    repository = repository_of(name)
    folder = require_dir(name, what, HINT) if repository is None else snapshot(repository, what, weights=False)
    if is_adapter(folder):
        return merged_dir(folder if repository is None else snapshot(repository, what), what, model_dir)
    if (folder / ADAPTER_CONFIG).is_file():  # which Transformers would apply to the model, engines would not
        raise ConfigError(
            f"{what}: {folder} has both a model and a PEFT adapter ({ADAPTER_CONFIG}); remove one of them"
        )
    require_supported(folder, what)
    if repository is not None:
        folder = snapshot(repository, what)
    tensor_shapes(folder, what)  # refuses weights that are missing or truncated
    return folder


def config_dir(name: str | Path, what: str = "model") -> Path:
    """The folder with the config.json of the model that `name` names, of an adapter its base; downloads no weights.

    Raises:
        ConfigError: as `model_dir`.
    """
    repository = repository_of(name)
    folder = require_dir(name, what, HINT) if repository is None else snapshot(repository, what, weights=False)
    return config_dir(*adapter_base(folder, what)) if is_adapter(folder) else folder


def tokenizer_dir(name: str | Path, what: str = "tokenizer") -> Path:
    """The folder with the tokenizer that `name` names; downloads no weights.

    Raises:
        ConfigError: as `model_dir`.
    """
    repository = repository_of(name)
    folder = require_dir(name, what, HINT) if repository is None else snapshot(repository, what, weights=False)
    if is_adapter(folder) and not any(folder.glob("tokenizer*")):
        return tokenizer_dir(*adapter_base(folder, what))
    return folder


def local_dir(name: str | Path) -> Path | None:
    """The folder that has the files of the model that `name` names, as far as they are on this machine; asks no hub.

    None for a folder that is not there, a repository of which nothing has been downloaded, and one of ModelScope.
    """
    if (folder := resolve(name)).is_dir():
        return folder
    repository = repository_of(name)
    return None if repository is None or uses_modelscope() else cached(repository)


def repository_of(name: str | Path) -> Repository | None:
    """The repository that `name` names; None for a local path, and for a name that a local folder has."""
    if resolve(name).exists():
        return None
    return parse_model(str(name))


def uses_modelscope() -> bool:
    """Whether models come from ModelScope.

    Raises:
        ConfigError: a value of the variable that means nothing.
    """
    hub = os.environ.get(HUB_VARIABLE, "huggingface")
    if hub not in ("huggingface", "modelscope"):
        raise ConfigError(f"{HUB_VARIABLE}={hub}: is no hub; set it to huggingface or modelscope")
    return hub == "modelscope"


def snapshot(repository: Repository, what: str, weights: bool = True) -> Path:
    """The local copy of a model's repository: its small files, and the weights if they are wanted.

    Raises:
        ConfigError: a repository or file that cannot be had; `what` is named.
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
