"""A checkpoint's config.json: its content, the shape that it describes, and Transformers' config object."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from actors.sizing.shape import Shape, shape_of
from configs.errors import ConfigError
from data.files.json_object import read_json_object

if TYPE_CHECKING:
    from transformers import PretrainedConfig

CONFIG: Final = "config.json"


def read_config(folder: Path, what: str) -> dict[str, Any]:
    """Returns the content of config.json.

    Raises:
        ConfigError: the file is missing or is not a JSON object; the message starts with `what`.
    """
    if not (folder / CONFIG).exists():
        raise ConfigError(f"{what}: no {CONFIG} in {folder}; name a folder in Hugging Face format")
    return read_json_object(folder / CONFIG, "export the model again", what)


def read_shape(folder: Path, what: str = "model") -> Shape:
    """Returns the shape of the model in `folder`.

    Raises:
        ConfigError: config.json is missing or incomplete, or Transformers cannot build a model from it.
    """
    return shape_of(read_config(folder, what), str(folder / CONFIG))


def transformers_config(folder: Path, what: str, **settings: Any) -> PretrainedConfig:
    """Returns the config object of the model in `folder`; a checkpoint's own code is never run. Imports Transformers.

    Args:
        folder: the checkpoint's folder.
        what: purpose of the model, for messages.
        settings: entries that override those of config.json.

    Raises:
        ConfigError: Transformers rejects config.json; the message starts with `what`.
    """
    from transformers import AutoConfig, PretrainedConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, **settings)
    except Exception as error:  # a model type's own class checks its settings and may raise anything
        raise ConfigError(f"{what}: {folder / CONFIG}: Transformers refuses it: {error}") from error
    assert isinstance(config, PretrainedConfig)
    return config
