"""Pins the commits of Hub models and tables, and the precision of `auto` dtypes, when a run starts.

They are stored in the run's config.yaml, so that a resumed run uses the same ones.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, TypeVar

from actors.model_folder.nodes import fetch
from actors.model_folder.source import repository_of, uses_modelscope
from actors.precision import automatic_dtypes
from configs.base import Section, read
from configs.errors import ConfigError
from data.hub import COMMIT, parse_model, pinned
from data.hub_tables import is_hub_table, pinned_table
from storage.durable import checksum_fault
from storage.paths import resolve, runs_root
from trainers.config.supervised import StageConfig

logger = logging.getLogger(__name__)

ConfigT = TypeVar("ConfigT", bound=StageConfig)
MODEL_KEYS = ("model", "tokenizer")
TABLE_KEYS = ("train", "heldout", "replay")
DTYPE_KEYS = ("dtype",)
_COMMIT = re.compile(rf"@{COMMIT.pattern}(?=/|$)")


def pin(config: ConfigT) -> ConfigT:
    """Returns `config` with a commit in the name of every Hub model and table.

    For a run that has already started, the commits are taken from its config.yaml, even if the Hub has newer ones. The
    same applies to dtypes that are not given, even if roles have moved to or from GPUs. Logs the commit or local folder
    that a name refers to, and each dtype that was kept.

    Raises:
        ConfigError: a repository is unknown, gated, or neither reachable nor in the cache.
    """
    values = config.model_dump(mode="json")
    names = [*named(values, MODEL_KEYS), *named(values, TABLE_KEYS)]
    for key, name, _ in names:
        if parse_model(name) and resolve(name).exists():
            logger.info("%s: %s is the local folder %s", key, name, resolve(name).absolute())
    found = [one for one in names if is_hub_table(one[1]) or _is_hub_model(one[1])]
    stored = _stored(config)
    kept = _keep_dtypes(config, values, stored)
    if not found and not kept:
        return config
    for key, name, put in found:
        earlier = stored.get(key, "")
        if earlier != name and _COMMIT.sub("", earlier) == name:
            logger.info("%s: %s, the commit that this run began with", key, earlier)
            put(earlier)
        else:
            try:
                put(_pinned(name))
            except ConfigError as error:
                raise ConfigError(f"{key}: {error}") from error
    return type(config).model_validate_json(json.dumps(values))


def _keep_dtypes(config: StageConfig, values: dict[str, Any], stored: Mapping[str, str]) -> bool:
    """Replaces dtypes that are not given with those in the run's config.yaml; returns whether any differed."""
    automatic, kept = set(automatic_dtypes(config)), False
    for key, now, put in named(values, DTYPE_KEYS):
        earlier = stored.get(key, now)
        if key in automatic and earlier != now:
            logger.info("%s: %s, the precision that this run began with (not given, it would be %s)", key, earlier, now)
            put(earlier)
            kept = True
    return kept


def fetch_on_nodes(config: StageConfig) -> None:
    """Downloads the Hub models of `config` on every node of the cluster.

    Raises:
        ConfigError: a node cannot download a model; the message names the node.
    """
    names = [name for _, name, _ in named(config.model_dump(mode="json"), MODEL_KEYS)]
    fetch(list(dict.fromkeys(names)))


def named(
    values: dict[str, Any], keys: tuple[str, ...], prefix: str = ""
) -> Iterator[tuple[str, str, Callable[[str], None]]]:
    """Yields every string under one of `keys`, at any depth and in lists.

    Each item is the full key, the string, and a function that replaces the string in `values`.
    """
    for name, value in values.items():
        if isinstance(value, dict):
            yield from named(value, keys, f"{prefix}{name}.")
        elif name in keys and isinstance(value, str):
            yield f"{prefix}{name}", value, lambda new, name=name: values.update({name: new})  # type: ignore[misc]
        elif name in keys and isinstance(value, list):
            for index, item in enumerate(value):
                yield (
                    f"{prefix}{name}[{index}]",
                    item,
                    lambda new, listed=value, index=index: listed.__setitem__(index, new),  # type: ignore[misc]
                )


def _stored(config: StageConfig) -> dict[str, str]:
    """Returns the names and dtypes in the run's config.yaml, by key.

    The result is empty for a new run, and for a damaged file, which `Run` rejects.
    """
    path = runs_root().joinpath(*PurePosixPath(config.name).parts) / "config.yaml"
    if not path.is_file() or checksum_fault(path.read_bytes(), required=False):
        return {}
    stage: dict[str, type[Section]] = {config.recipe_key: type(config)}
    values = read(config.recipe_key, stage, ["--config", str(path)]).model_dump(mode="json")
    return {key: name for key, name, _ in named(values, MODEL_KEYS + TABLE_KEYS + DTYPE_KEYS)}


def _is_hub_model(name: str) -> bool:
    return not uses_modelscope() and repository_of(name) is not None


def _pinned(name: str) -> str:
    if is_hub_table(name):
        return pinned_table(name)
    repository = parse_model(name)
    assert repository is not None  # checked by `_is_hub_model`
    return str(pinned(repository))
