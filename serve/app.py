"""Builds the endpoint as a Ray Serve application, which `python -m serve` starts.

gateway (FastAPI: keys, limits, metrics) ──► engines (Ray Serve LLM on vLLM), one deployment per model
                                         └─► scorer (the reward model), if one is given
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ray import serve
from ray.serve.config import RequestRouterConfig
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig

from actors.model_folder.compatibility import require_same_format
from actors.model_folder.folders import ModelFolder
from actors.model_folder.nodes import fetch
from cluster.environment import EVERYWHERE
from configs.errors import ConfigError
from configs.logs import configure
from data.chat import chat_format
from serve.config import LimitsConfig, ServeConfig, named_folders, read_arguments
from serve.gateway.abilities import abilities_of
from serve.gateway.deployment import Gateway, GatewaySettings
from serve.gateway.routes import Models
from serve.keys import VARIABLE, WITHOUT_KEYS, Key, read_keys, to_plain
from serve.requests.sampling import MOST_STOPS

logger = logging.getLogger(__name__)

# An engine that does not pass a health check within this time is replaced. Starting an engine takes tens of seconds.
HEALTH_PERIOD_S, HEALTH_TIMEOUT_S = 5.0, 30.0
DRAIN_S = 60.0
# With one engine of one CPU, the whole endpoint fits on two cores.
SCORER_CPUS, GATEWAY_CPUS = 0.5, 0.25
POLLS = 8  # concurrent state requests that an engine accepts in addition to its sequences
SCORES_AT_A_TIME = 16


def build(arguments: dict[str, Any]) -> serve.Application:
    """Builds the application for `serve run`, `serve deploy`, and a RayService; raises the errors of `application`."""
    configure("serve")
    return application(read_arguments(arguments))


def application(config: ServeConfig, version: str = "") -> serve.Application:
    """Validates the settings and builds the application.

    Args:
        config: the settings.
        version: identifies all settings except `weights`. A deployment with the same version makes running engines load
            the new weights; with another version, or none, every replica is replaced.

    Raises:
        ConfigError: an argument, folder, or key is invalid; raised before anything is started, with a one-line message.
    """
    folders = {name: ModelFolder(folder, "model") for name, folder in named_folders(config.model, "model").items()}
    _check_models(folders, config)
    abilities = {name: abilities_of(folder, config.engine.tool_parser) for name, folder in folders.items()}
    weights = _newer_weights(config, folders)
    reward = _reward_model(config, folders)
    _fetch_on_nodes(config)
    keys = read_keys(config.api_keys_file)
    if not keys:
        logger.warning("no API keys (set %s): the endpoint accepts only requests from this machine", VARIABLE)
    models = Models(
        dict.fromkeys(folders, config.engine.max_model_len),
        next(iter(reward), ""),
        abilities=abilities,
        slots={**dict.fromkeys(folders, _sequences(config)), **dict.fromkeys(reward, SCORES_AT_A_TIME)},
    )
    engines = {
        name: _engine(name, folder, weights.get(name, ""), abilities[name].tool_parser, config)
        for name, folder in folders.items()
    }
    scorer = _scorer(*reward.popitem(), config) if reward else None
    settings = GatewaySettings(models, _limits(config, len(keys)), config.cors_origins)
    engines = {name: _of_version(engine, version) for name, engine in engines.items()}
    scorer = _of_version(scorer, version) if scorer else None
    return _of_version(_gateway(settings, keys, engines, scorer), version)


def _of_version(deployed: Any, version: str) -> Any:
    """Sets a deployment's version.

    Without a version, Serve replaces all replicas. Of Serve's commands, only `serve deploy` sets a version itself.
    """
    if not version:
        return deployed
    return serve.Application(deployed._bound_deployment.options(_internal=True, version=version))


def _limits(config: ServeConfig, keys: int) -> LimitsConfig:
    """Returns the limits, with `sequences` capped at the number of one engine's sequences that one key may use."""
    share = config.limits.key_share if keys > 1 else 1.0
    most = max(1, int(config.engine.max_concurrent * share))
    return config.limits.model_copy(update={"sequences": min(config.limits.sequences, most)})


def _sequences(config: ServeConfig) -> int:
    """Returns the number of sequences that all engines of a model decode concurrently."""
    return config.engine.max_concurrent * max(config.replicas.count, config.replicas.most)


def _check_models(folders: Mapping[str, ModelFolder], config: ServeConfig) -> None:
    for name, folder in folders.items():
        if folder.is_reward_model:
            raise ConfigError(f"model={name}: {folder.path} is a reward model; give it as reward_model=DIR")
        if config.engine.max_model_len > folder.context:
            raise ConfigError(
                f"engine.max_model_len={config.engine.max_model_len}: the context of {name} is {folder.context}; "
                "lower it"
            )
        folder.require_complete()


def _reward_model(config: ServeConfig, folders: Mapping[str, ModelFolder]) -> dict[str, ModelFolder]:
    """Returns the reward model's folder by its name; empty if none is given."""
    if not config.reward_model:
        return {}
    given = named_folders(config.reward_model, "reward_model")
    if set(given) & set(folders) or len(given) > 1:
        raise ConfigError(
            f"reward_model={config.reward_model}: give one reward model, with a name that no model has: NAME=DIR"
        )
    name, folder = next((name, ModelFolder(path, "reward_model")) for name, path in given.items())
    if not folder.is_reward_model:
        raise ConfigError(f"reward_model={name}: {folder.path} has no scalar head; give the folder of a reward model")
    chat_format(folder.tokenizer)  # rejects an unsuitable chat format
    folder.require_complete()
    return {name: folder}


def _fetch_on_nodes(config: ServeConfig) -> None:
    """Downloads Hub models on every node, into the same folder on each: engines receive its path."""
    given = (config.model, config.reward_model, config.weights)
    fetch([name for text in given if text for name in named_folders(text, "model").values()], same_folder=True)


def _newer_weights(config: ServeConfig, folders: Mapping[str, ModelFolder]) -> dict[str, str]:
    """Returns the folders of newer weights by model. Engines can load only weights of their own architecture."""
    if not config.weights:
        return {}
    given = named_folders(config.weights, "weights")
    if len(folders) == 1 and len(given) == 1:
        given = {next(iter(folders)): next(iter(given.values()))}
    weights = {}
    for name, path in given.items():
        if name not in folders:
            raise ConfigError(f"weights={config.weights}: there is no model '{name}'; name one of {', '.join(folders)}")
        folder = ModelFolder(path, "weights")
        if folder.architecture() != folders[name].architecture():
            raise ConfigError(
                f"weights={config.weights}: {folder.path} is not of the architecture of {folders[name].path}; "
                "start another endpoint with it"
            )
        require_same_format(folders[name].path, folders[name].tokenizer, folder.path, folder.tokenizer)
        weights[name] = str(folder.path)
    return weights


def _engine(name: str, folder: ModelFolder, weights: str, tool_parser: str, config: ServeConfig) -> DeploymentHandle:
    from ray.serve.llm import LLMConfig, build_llm_deployment

    from actors.inference.vllm_settings import engine_arguments
    from serve.engines.deployment import Engine

    replicas, on_gpus = config.replicas, config.replicas.gpus > 0
    deployment: dict[str, Any] = {
        "name": name,
        "user_config": {"weights": weights},  # running replicas apply a change to it; any other change restarts them
        # At this limit, the next request goes to another engine. The gateway keeps the number of sequences below it,
        # and state requests must not wait for sequences.
        "max_ongoing_requests": config.engine.max_concurrent + POLLS,
        "max_queued_requests": config.limits.queued,
        "health_check_period_s": HEALTH_PERIOD_S,
        "health_check_timeout_s": HEALTH_TIMEOUT_S,
        "graceful_shutdown_timeout_s": DRAIN_S,
        "logging_config": {"encoding": "JSON", "enable_access_log": False},  # the gateway logs each request
        "ray_actor_options": {"num_cpus": 0},  # the bundle below holds all resources of a replica
    }
    if replicas.most > replicas.count:
        deployment["autoscaling_config"] = {
            "min_replicas": replicas.count,
            "max_replicas": replicas.most,
            "target_ongoing_requests": replicas.target_ongoing,
        }
    else:
        deployment["num_replicas"] = replicas.count
    if max(replicas.count, replicas.most) > 1:
        # Routes by the hash of a prompt's beginning. Ray Serve LLM's own prefix router keeps a tree in an actor, and
        # blocks the event loop while it waits for it; a client that disconnects then delays all others for 30 seconds.
        deployment["request_router_config"] = RequestRouterConfig(
            request_router_class="ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
        )
    bundle = {"CPU": replicas.cpus, **({"GPU": 1.0} if on_gpus else {})}
    llm = LLMConfig(
        model_loading_config={"model_id": name, "model_source": str(folder.path)},
        engine_kwargs={
            **engine_arguments(config.engine, on_gpus),
            **({"tensor_parallel_size": replicas.gpus} if on_gpus else {}),
            **({"enable_auto_tool_choice": True, "tool_call_parser": tool_parser} if tool_parser else {}),
            **({"reasoning_parser": config.engine.reasoning_parser} if config.engine.reasoning_parser else {}),
            # If white space between JSON tokens is allowed, a model may generate it until max_tokens is reached.
            "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
            "worker_extension_cls": "actors.inference.reloading.ReloadsFolders",
            "generation_config": "vllm",  # default sampling settings are vLLM's, not the model folder's
        },
        placement_group_config={"bundles": [bundle] * max(1, replicas.gpus)},
        deployment_config=deployment,
        runtime_env={"env_vars": _environment(replicas.threads, on_gpus)},
        experimental_configs={"stream_batching_interval_ms": config.stream_interval_ms},
        log_engine_metrics=True,
    )
    return build_llm_deployment(llm, name_prefix="engine:", deployment_cls=Engine)


def _environment(threads: int, on_gpus: bool) -> dict[str, str]:
    from actors.inference.vllm_settings import CPU_ENVIRONMENT

    anywhere = {
        **EVERYWHERE,
        **WITHOUT_KEYS,
        "VLLM_MAX_STOP_STRINGS": str(MOST_STOPS),
        "VLLM_XGRAMMAR_CACHE_MB": "64",  # clients can fill it with arbitrary schemas; vLLM's default is 512
    }
    if on_gpus:
        return anywhere
    return {
        **anywhere,
        **CPU_ENVIRONMENT,
        "OMP_NUM_THREADS": str(threads),
        "VLLM_LOGGING_LEVEL": "WARNING",
    }


def _scorer(name: str, folder: ModelFolder, config: ServeConfig) -> DeploymentHandle:
    from serve.engines.score import Scorer

    options = {"num_cpus": SCORER_CPUS, "num_gpus": min(1, config.replicas.gpus)}
    variables = {**EVERYWHERE, **WITHOUT_KEYS, "OMP_NUM_THREADS": str(config.replicas.threads)}
    if not config.replicas.gpus:
        variables["CUDA_VISIBLE_DEVICES"] = ""  # Ray does not hide GPUs from actors that reserve none
    return serve.deployment(
        Scorer,
        name=f"scorer:{name}",
        max_ongoing_requests=SCORES_AT_A_TIME,
        max_queued_requests=config.limits.queued,
        ray_actor_options={**options, "runtime_env": {"env_vars": variables}},
        logging_config=LoggingConfig(encoding="JSON", enable_access_log=False),
    ).bind(str(folder.path), config.replicas.threads, config.reward_dtype)


def _gateway(
    settings: GatewaySettings,
    keys: Sequence[Key],
    engines: dict[str, DeploymentHandle],
    scorer: DeploymentHandle | None,
) -> serve.Application:
    deployment = serve.deployment(
        Gateway,
        name="gateway",
        num_replicas=1,
        max_ongoing_requests=10_000,
        user_config={"keys": to_plain(keys)},  # the running gateway applies a change to it
        ray_actor_options={"num_cpus": GATEWAY_CPUS, "runtime_env": {"env_vars": dict(WITHOUT_KEYS)}},
        graceful_shutdown_timeout_s=DRAIN_S,
        logging_config=LoggingConfig(encoding="JSON", enable_access_log=False),
    )
    return deployment.bind(settings, engines, scorer)
