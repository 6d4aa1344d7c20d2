"""A model's folder in Hugging Face format: checked before anything heavy starts, described without loading weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cluster.paths import require_dir
from configs.errors import ConfigError
from data.chat import chat_ends
from data.durable import sha256

_HINT = "name a folder in Hugging Face format, such as a run's model/"
# Settings that change nothing about a model's tensors or arithmetic.
_NOT_ARCHITECTURE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache")


@dataclass(frozen=True)
class Architecture:
    """What two models must share to take each other's place in an engine: config, tensor names and shapes."""

    config: str
    tensors: tuple[tuple[str, tuple[int, ...]], ...]


class ModelFolder:
    """A folder with config.json, *.safetensors and a tokenizer, as the trainers export it.

    Args:
        path: as the user wrote it; a leading `runs/` is resolved.
        what: what the folder is for, as messages call it.

    Raises:
        ConfigError: no such folder, or no readable config.json in it.
    """

    def __init__(self, path: str | Path, what: str = "model") -> None:
        self.path = require_dir(path, what, _HINT)
        file = self.path / "config.json"
        try:
            self.config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ConfigError(f"{what}: there is no config.json in {self.path}; {_HINT}") from error
        except (OSError, ValueError) as error:
            raise ConfigError(f"{what}: {file} is not readable as JSON: {error}; export the model again") from error
        if not self._files():
            raise ConfigError(f"{what}: there are no *.safetensors weights in {self.path}; {_HINT}")

    @property
    def is_reward_model(self) -> bool:
        """Whether the model has a scalar head instead of a language-model head."""
        return any("SequenceClassification" in name for name in self.config.get("architectures") or ())

    @property
    def is_llama(self) -> bool:
        """Whether the model is a Llama language model, whatever its size."""
        return self.config.get("architectures") == ["LlamaForCausalLM"]

    @property
    def context(self) -> int:
        """Longest sequence in tokens."""
        return int(self._setting("max_position_embeddings"))

    @property
    def cache_bytes_per_token(self) -> int:
        """KV cache of one token in float32."""
        heads = int(self._setting("num_attention_heads"))
        kv_heads = int(self.config.get("num_key_value_heads") or heads)
        head_size = int(self.config.get("head_dim") or int(self._setting("hidden_size")) // heads)
        return 2 * int(self._setting("num_hidden_layers")) * kv_heads * head_size * 4

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """Ids of all tokens that end a response; see `data.chat.chat_ends`."""
        return chat_ends(self.tokenizer, self.path)

    @cached_property
    def tokenizer(self) -> Any:
        """The folder's tokenizer.

        Raises:
            ConfigError: none, or one that does not fit the model.
        """
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self.path)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.path}: no usable tokenizer: {error}; copy the run's tokenizer there") from error
        rows = int(self._setting("vocab_size"))
        if len(tokenizer) > rows:
            raise ConfigError(
                f"{self.path}: the tokenizer has {len(tokenizer)} tokens and the model {rows}; "
                "copy the tokenizer that the model was trained with"
            )
        return tokenizer

    def weights(self) -> Iterator[tuple[str, Any]]:
        """Every tensor by name, one at a time."""
        from safetensors import safe_open

        for file in self._files():
            with safe_open(file, framework="pt") as tensors:
                for name in sorted(tensors.keys()):
                    yield name, tensors.get_tensor(name)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the weights, config and tokenizer: two folders of one digest answer alike. Reads them all."""
        files = [
            *self._files(),
            *sorted(self.path.glob("*.json")),
            *sorted(self.path.glob("*.jinja")),
            *sorted(self.path.glob("tokenizer.model")),
        ]
        lines = "".join(f"{sha256(file)}  {file.name}\n" for file in files)
        return hashlib.sha256(lines.encode()).hexdigest()

    def architecture(self) -> Architecture:
        """See `Architecture`; reads the headers of the weights only.

        Raises:
            ConfigError: a weights file that is not safetensors or is cut off.
        """
        from safetensors import SafetensorError, safe_open

        tensors: list[tuple[str, tuple[int, ...]]] = []
        for file in self._files():
            try:
                with safe_open(file, framework="pt") as weights:
                    tensors += [(name, tuple(weights.get_slice(name).get_shape())) for name in sorted(weights.keys())]
            except (SafetensorError, OSError) as error:
                raise ConfigError(f"{file}: not readable as weights ({error}); export the model again") from error
        config = {key: value for key, value in self.config.items() if key not in _NOT_ARCHITECTURE}
        return Architecture(json.dumps(config, sort_keys=True), tuple(sorted(tensors)))

    def _files(self) -> list[Path]:
        return sorted(self.path.glob("*.safetensors"))

    def _setting(self, name: str) -> Any:
        if self.config.get(name) is None:
            raise ConfigError(f"{self.path / 'config.json'}: has no {name}; export the model again")
        return self.config[name]
