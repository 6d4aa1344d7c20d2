"""A model's folder in Hugging Face format: checks and properties that do not require loading the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from actors.model_folder.checks import is_scorer, require_one_output, require_rows, require_trainable
from actors.model_folder.config_json import CONFIG, read_config
from actors.model_folder.source import model_dir
from actors.model_folder.weights import tensor_shapes, weight_files
from configs.errors import ConfigError
from data.chat import chat_ends
from data.tokenizer.hf_tokenizer import read_tokenizer
from storage.durable import sha256

# Settings that affect neither a model's tensors nor its arithmetic.
_NOT_ARCHITECTURE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache")


@dataclass(frozen=True)
class Architecture:
    """What must be equal for two models to be interchangeable in an engine: config, tensor names, and shapes."""

    config: str
    tensors: tuple[tuple[str, tuple[int, ...]], ...]


class ModelFolder:
    """The folder of a model: config.json, weights, and a tokenizer.

    Args:
        path: the model as the user named it: a path or Hub id, also of a PEFT adapter; see
            `actors.model_folder.source`.
        what: purpose of the folder, for messages.

    Raises:
        ConfigError: the model does not exist or cannot be loaded, or it is a sequence classifier with several outputs,
            quantized weights, or an invalid dropout setting.
    """

    def __init__(self, path: str | Path, what: str = "model") -> None:
        self.path, self._what = model_dir(path, what), what
        self.config = read_config(self.path, what)
        if self.is_reward_model:
            require_one_output(self.path, what)
            require_trainable(self.config, self.path, what)

    @property
    def is_reward_model(self) -> bool:
        """Whether the model has a scalar head instead of a language-model head."""
        return is_scorer(self.config)

    @property
    def is_llama(self) -> bool:
        """Whether the model is a Llama language model, whatever its size."""
        return self.config.get("architectures") == ["LlamaForCausalLM"]

    @property
    def context(self) -> int:
        """Length of the longest sequence, in tokens.

        Raises:
            ConfigError: config.json does not specify it.
        """
        return int(self._setting("max_position_embeddings"))

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """Ids of all tokens that end a response; see `data.chat.chat_ends`."""
        return chat_ends(self.tokenizer, self.path)

    @cached_property
    def tokenizer(self) -> Any:
        """The folder's tokenizer.

        Raises:
            ConfigError: the folder has no tokenizer, or the tokenizer does not fit the model.
        """
        tokenizer: Any = read_tokenizer(self.path)
        require_rows(tokenizer, self.config, str(self.path))
        return tokenizer

    def require_complete(self) -> None:
        """Rejects weights that do not match config.json; see `actors.model_folder.completeness`. Imports torch."""
        from actors.model_folder.completeness import require_complete

        require_complete(self.path, self._what)

    def weights(self) -> Iterator[tuple[str, Any]]:
        """Yields (name, tensor) for every tensor; safetensors files are read one tensor at a time."""
        import torch
        from safetensors import safe_open

        for file in self._files():
            if file.suffix == ".bin":
                yield from sorted(torch.load(file, map_location="cpu", weights_only=True).items())
                continue
            with safe_open(file, framework="pt") as tensors:
                for name in sorted(tensors.keys()):
                    yield name, tensors.get_tensor(name)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of weights, config, and tokenizer: folders with equal digests give equal results. Reads all files."""
        files = [
            *self._files(),
            *sorted(self.path.glob("*.json")),
            *sorted(self.path.glob("*.jinja")),
            *sorted(self.path.glob("tokenizer.model")),
        ]
        lines = "".join(f"{sha256(file)}  {file.name}\n" for file in files)
        return hashlib.sha256(lines.encode()).hexdigest()

    def architecture(self) -> Architecture:
        """Returns the model's `Architecture`; reads only the headers of the weights.

        Raises:
            ConfigError: a weights file is truncated or has another format.
        """
        tensors = sorted(tensor_shapes(self.path, self._what).items())
        config = {key: value for key, value in self.config.items() if key not in _NOT_ARCHITECTURE}
        return Architecture(json.dumps(config, sort_keys=True), tuple(tensors))

    def _files(self) -> list[Path]:
        return weight_files(self.path, self._what)

    def _setting(self, name: str) -> Any:
        if self.config.get(name) is None:
            raise ConfigError(f"{self.path / CONFIG}: has no {name}; export the model again")
        return self.config[name]
