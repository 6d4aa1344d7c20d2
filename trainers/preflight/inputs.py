"""Checks a stage's inputs for the preflight command: model folders, tokenizers, and tables. Does not read all data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from actors.model_folder.adapters import is_adapter
from actors.model_folder.checks import require_supported
from actors.model_folder.source import HINT, config_dir, repository_of
from cluster.preflight.needs import Finding
from configs.errors import ConfigError, first_line
from data.files.records import json_lines
from data.tables import MAY_LACK, PREFERENCE, PRETRAIN, PROMPTS, SFT, DataError, table_files
from storage.paths import require_dir, require_file, resolve, table_path
from trainers.runs.export import Kind, load_chat_tokenizer, load_tokenizer, require_config, require_model
from trainers.runs.pinning import MODEL_KEYS, TABLE_KEYS, named

TABLES: Mapping[str, pa.Schema] = {
    "pretrain.data": PRETRAIN,
    "sft.data": SFT,
    "reward.data": PREFERENCE,
    "dpo.data": PREFERENCE,
    "ppo.prompts": PROMPTS,
    "rejection.prompts": PROMPTS,
    "rejection.sft.data": SFT,
    "rejection.replay": SFT,
}

_CHAT_MODELS = ("model", "policy.model")
"""Settings of the models whose tokenizers encode a stage's chats."""
KINDS: Mapping[str, Kind] = {
    "reward.model": "either",
    "ppo.critic.model": "either",
    "ppo.reward.model": "scorer",
    "rejection.reward.model": "scorer",
}


def inputs(config: Any, planned: bool) -> Iterator[Finding]:
    """Yields a finding for every model folder and table that `config` names.

    Args:
        planned: whether the model's shape is given instead of the model, so that missing inputs are findings of level
            `unknown`, not `refused`.
    """
    values = config.model_dump(mode="json")
    for key, folder, _ in named(values, MODEL_KEYS):
        yield _model(config, key, folder, planned)
    for key, path, _ in named(values, TABLE_KEYS):
        schema = next(schema for name, schema in TABLES.items() if f"{config.recipe_key}.{key}".startswith(name))
        try:
            files = table_files(table_path(path))
        except ConfigError as error:
            yield Finding("refused", "inputs", f"{key}: {error}")
            continue
        yield from (_table(key, str(file), schema, planned) for file in files)


def _model(config: Any, key: str, name: str, planned: bool) -> Finding:
    """Checks a model or tokenizer, without downloading weights or merging an adapter."""
    light = not planned and (repository_of(name) is not None or is_adapter(resolve(name)))
    kind: Kind = KINDS.get(f"{config.recipe_key}.{key}", "language")
    try:
        path = config_dir(name, key) if light else require_dir(name, key, HINT)
    except ConfigError as error:
        return Finding("unknown" if planned else "refused", "inputs", str(error))
    try:
        if key.endswith("model") and light:
            require_supported(path, key)
            require_config(path, 1, key, key, kind)
        elif key.endswith("model"):
            require_model(path, 1, key, key, kind)
        if key in _CHAT_MODELS and config.recipe_key != "pretrain":
            load_chat_tokenizer(name, config.chat)
        else:
            load_tokenizer(name)
    except ConfigError as error:
        return Finding("refused", "inputs", f"{key}: {error}")
    return Finding("fits", "inputs", f"{key}: {name if light else path}")


def _table(key: str, name: str, schema: pa.Schema, planned: bool) -> Finding:
    try:
        path = require_file(name, key, "check the path, or write the sample data with python -m data.clinic")
    except ConfigError as error:
        return Finding("unknown" if planned else "refused", "inputs", str(error))
    try:
        columns = _columns(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        return Finding("refused", "inputs", f"{key}: {path} cannot be read ({first_line(error)})")
    missing = [column for column in schema.names if column not in columns and column not in MAY_LACK]
    if missing:
        return Finding(
            "refused", "inputs", f"{key}: {path} has no column {', '.join(missing)}; it has {', '.join(columns)}"
        )
    return Finding("fits", "inputs", f"{key}: {path}")


def _columns(path: Path) -> list[str]:
    """Returns the column names of a table, from the Parquet footer or the first line of a JSON Lines file."""
    if path.suffix == ".parquet":
        names: list[str] = pq.read_schema(path).names
        return names
    if path.suffix != ".jsonl":
        raise DataError("it is neither .parquet nor .jsonl")
    number, first = next(json_lines(path), (1, {}))
    if not isinstance(first, dict):
        raise DataError(f"{path}:{number}: is not a JSON object")
    return list(first)
