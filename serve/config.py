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
        "", description="vLLM's tool call parser; empty: chosen by the chat template; none: no parser"
    )
    reasoning_parser: str = Field("", description="vLLM's reasoning parser, e.g. qwen3; empty: none")
    max_concurrent: int = Field(
        64, ge=1, description="maximum number of sequences that the engine decodes concurrently; others wait"
    )
    kv_cache_bytes: int = Field(2**30, ge=2**20, description="memory of the KV cache on CPUs, bytes")


class ReplicasConfig(Section):
    """Number of engines of each model, and the resources of one engine."""

    count: int = Field(1, ge=1, description="minimum number of engines per model")
    most: int = Field(0, ge=0, description="maximum number of engines per model (autoscaling); 0: always `count`")
    target_ongoing: int = Field(
        48, ge=1, description="target number of concurrent requests per engine; with more, autoscaling adds an engine"
    )
    cpus: float = Field(1.0, gt=0, description="CPUs reserved in Ray per engine")
    gpus: int = Field(0, ge=0, description="GPUs per engine (tensor parallel size); 0: runs on CPUs")
    threads: int = Field(2, ge=1, description="compute threads per engine on CPUs")

    @model_validator(mode="after")
    def _most_is_no_fewer(self) -> ReplicasConfig:
        if 0 < self.most < self.count:
            raise ValueError(
                f"replicas.most {self.most} is below replicas.count {self.count}: raise it, or set it to 0"
            )
        return self


class LimitsConfig(Section):
    """Limits on one API key and on one request."""

    requests_per_minute: int = Field(0, ge=0, description="requests per minute and key; 0: no limit")
    tokens_per_minute: int = Field(0, ge=0, description="prompt and response tokens per minute and key; 0: no limit")
    key_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="maximum fraction of a model's concurrent sequences that one key may use if there are several",
    )
    sequences: int = Field(64, ge=1, description="maximum sequences (n x prompts) per request")
    body_bytes: int = Field(2**20, ge=1024, description="maximum size of a request body, bytes")
    body_seconds: float = Field(30.0, gt=0, description="timeout for receiving a request body, seconds")
    header_bytes: int = Field(
        16_384, ge=1024, description="maximum total size of a request's header names and values, bytes"
    )
    headers: int = Field(64, ge=8, description="maximum number of headers per request")
    characters_per_token: int = Field(
        32, ge=1, description="maximum prompt length, in characters per token of the model's context"
    )
    queued: int = Field(256, ge=1, description="maximum queued requests per model; further ones get status 503")
    seconds: float = Field(600.0, gt=0, description="timeout of a request, seconds")
    shared_prefixes: bool = Field(
        False,
        description="share the prefix cache between keys: faster for common prefixes, but the time to the first token "
        "then reveals to one key whether another key has sent the same prompt",
    )


class ServeConfig(Section):
    """Settings of the endpoint."""

    recipe_key: ClassVar[str] = "serve"

    model: str = Field(
        description="[NAME=]DIR of the model, in Hugging Face format, or a Hub id; separate several by commas"
    )
    weights: str = Field(
        "", description="[NAME=]DIR of newer weights of the same architecture; running engines load them"
    )
    reward_model: str = Field("", description="[NAME=]DIR of a reward model for /v1/score")
    reward_dtype: Dtype = Field("auto", description=f"precision of the reward model; {AUTO}")
    engine: ServingEngineConfig = ServingEngineConfig()
    replicas: ReplicasConfig = ReplicasConfig()
    limits: LimitsConfig = LimitsConfig()
    api_keys_file: str = Field(
        "", description="YAML file with named API keys, or a file with one key per line; CHIMED_API_KEYS adds more"
    )
    stream_interval_ms: int = Field(
        100, ge=0, description="interval between chunks of a stream after the first, milliseconds"
    )
    cors_origins: list[str] = Field([], description="web origins that browsers may call from (CORS)")

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
        ConfigError: a part is empty, a name occurs twice, or a route cannot contain a name.
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
    """Returns the default name of a folder or of a Hub id, without the Hub id's revision."""
    repository = parse_model(name)
    folder = Path(name if repository is None else repository.name)
    return folder.parent.name or DEFAULT_NAME if folder.name == "model" else folder.name
