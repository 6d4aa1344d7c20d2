"""Settings of the endpoint, from `python -m serve model=DIR [key=value ...]` or from `args` in a Serve config file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from actors.config import EngineConfig
from actors.precision import AUTO, Dtype, resolve_dtype, settle_dtype_of
from configs.base import Section, from_arguments
from configs.errors import ConfigError
from data.hub import parse_model
from serve.names import require_name

DEFAULT_NAME = "model"


class ServingEngineConfig(EngineConfig):
    """One vLLM engine. Its KV cache is larger than that of an engine that shares a machine with trainers."""

    tool_parser: str = Field(
        "", description="vLLM's parser of tool calls; by default found by the chat template, 'none' for none"
    )
    reasoning_parser: str = Field("", description="vLLM's parser of what a model thinks before it answers, as qwen3")
    kv_cache_bytes: int = Field(2**30, ge=2**20, description="memory of the KV cache on CPU, bytes")


class ReplicasConfig(Section):
    """Number of engines of each model, and the resources of one engine."""

    count: int = Field(1, ge=1, description="engines of each model, always there")
    most: int = Field(0, ge=0, description="engines of each model under load; 0: `count`, never more")
    target_ongoing: int = Field(48, ge=1, description="requests an engine should work on; more start another one")
    cpus: float = Field(1.0, gt=0, description="CPUs that Ray reserves for one engine")
    gpus: int = Field(0, ge=0, description="GPUs of one engine (tensor parallel); 0 runs on CPUs")
    threads: int = Field(2, ge=1, description="computing threads of one engine on CPUs")

    @model_validator(mode="after")
    def _most_is_no_fewer(self) -> ReplicasConfig:
        if 0 < self.most < self.count:
            raise ValueError(f"replicas.most {self.most} is below replicas.count {self.count}: raise it or leave it 0")
        return self


class LimitsConfig(Section):
    """Limits on one API key and on one request."""

    requests_per_minute: int = Field(0, ge=0, description="requests of one key; 0: no limit")
    tokens_per_minute: int = Field(0, ge=0, description="prompt and answer tokens of one key; 0: no limit")
    key_share: float = Field(
        0.5, gt=0, le=1, description="share of a model's sequences that one of several keys may have at the engines"
    )
    sequences: int = Field(64, ge=1, description="sequences (n x prompts) of one request")
    body_bytes: int = Field(2**20, ge=1024, description="largest request body")
    body_seconds: float = Field(30.0, gt=0, description="longest time for receiving a request body")
    header_bytes: int = Field(16_384, ge=1024, description="largest total of a request's header names and values")
    headers: int = Field(64, ge=8, description="headers of one request")
    characters_per_token: int = Field(
        32, ge=1, description="longest prompt, in characters per token of the model's context"
    )
    queued: int = Field(256, ge=1, description="requests of a model that may wait; one more gets a 503")
    seconds: float = Field(600.0, gt=0, description="longest time for one request")
    shared_prefixes: bool = Field(
        False,
        description="let keys reuse each other's cached prompts: faster where they begin alike, but then the time to the "
        "first token tells one key whether another has sent a prompt",
    )


class ServeConfig(Section):
    """Settings of the endpoint."""

    recipe_key: ClassVar[str] = "serve"

    model: str = Field(
        description="[NAME=]DIR of the model, in Hugging Face format, or a Hub id; several, separated by commas"
    )
    weights: str = Field(
        "", description="[NAME=]DIR of newer weights of the same architecture, taken over by running engines"
    )
    reward_model: str = Field("", description="[NAME=]DIR of a reward model for /v1/score")
    reward_dtype: Dtype = Field("auto", description=f"precision of the reward model; {AUTO}")
    engine: ServingEngineConfig = ServingEngineConfig()
    replicas: ReplicasConfig = ReplicasConfig()
    limits: LimitsConfig = LimitsConfig()
    api_keys_file: str = Field(
        "", description="YAML file with named API keys, or a file with one key a line; besides those of CHIMED_API_KEYS"
    )
    stream_interval_ms: int = Field(
        100, ge=0, description="after the first, tokens of a stream are sent together this often"
    )
    cors_origins: list[str] = Field([], description="web origins that browsers may call from; none by default")

    @model_validator(mode="after")
    def _dtypes_by_replicas(self) -> ServeConfig:
        on_gpus = self.replicas.gpus > 0
        vars(self)["reward_dtype"] = resolve_dtype(self.reward_dtype, on_gpus)
        return settle_dtype_of(self, "engine", on_gpus)


def read_arguments(arguments: Mapping[str, Any]) -> ServeConfig:
    """Parses an application's arguments.

    Args:
        arguments: text from a command line, or values from a YAML file, by key.

    Raises:
        ConfigError: an argument is invalid; the message is one line that names it.
    """
    return from_arguments("serve", ServeConfig, arguments)


def named_folders(text: str, argument: str) -> dict[str, str]:
    """Parses `[NAME=]DIR[,[NAME=]DIR ...]` into folders by name, in order.

    A folder without a name is named after its run (`runs/quickstart/ppo/model` is `ppo`), a Hub id after its
    repository.

    Raises:
        ConfigError: an empty part, a duplicate name, or a name that a route cannot contain.
    """
    folders: dict[str, str] = {}
    for part in text.split(","):
        name, equals, folder = part.strip().partition("=")
        if not equals:
            name, folder = _own_name(name), name
        if not name or not folder:
            raise ConfigError(f"{argument}={text}: '{part}' is not [NAME=]DIR; give a folder, e.g. runs/ppo/model")
        if equals or argument != "weights":  # weights of the only model need no name
            require_name(name, f"{argument}={text}")
        if name in folders:
            raise ConfigError(
                f"{argument}={text}: '{name}' is named twice; give the folders different names: a=DIR,b=DIR"
            )
        folders[name] = folder
    return folders


def _own_name(name: str) -> str:
    """Returns the default name of a folder or of a Hub id; a Hub id's revision is left out."""
    repository = parse_model(name)
    folder = Path(name if repository is None else repository.name)
    return folder.parent.name or DEFAULT_NAME if folder.name == "model" else folder.name
