"""What a stage reads, looked at without reading it: model folders, tokenizers, tables. For the preflight command."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.paths import require_dir, require_file, resolve
from cluster.preflight.needs import Finding
from configs.errors import ConfigError
from data.tables import MAY_LACK, PREFERENCE, PRETRAIN, PROMPTS, SFT, DataError, table_files
from trainers.export import load_chat_tokenizer, load_tokenizer, require_model

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
"""The models whose tokenizers encode a stage's chats."""


def inputs(config: Any, planned: bool) -> Iterator[Finding]:
    """A finding for every folder and table. `planned`: one that is missing is not refused, since a shape stands for it."""
    values = config.model_dump(mode="json")
    for key, folder in _models(values):
        yield _model(config, key, folder, planned)
    for key, paths in _tables(values):
        schema = next(schema for name, schema in TABLES.items() if f"{config.recipe_key}.{key}".startswith(name))
        for path in paths:
            try:
                files = table_files(resolve(path))
            except DataError as error:
                yield Finding("refused", "inputs", f"{key}: {error}")
                continue
            yield from (_table(key, str(file), schema, planned) for file in files)


def _models(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """`model` and `tokenizer` of the stage and of its roles, with their keys."""
    for name, value in values.items():
        if name in ("model", "tokenizer") and isinstance(value, str):
            yield prefix + name, value
        elif isinstance(value, dict):
            yield from _models(value, f"{prefix}{name}.")


def _tables(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    for name, value in values.items():
        if name in ("train", "heldout", "replay") and isinstance(value, list):
            yield prefix + name, value
        elif isinstance(value, dict):
            yield from _tables(value, f"{prefix}{name}.")


def _model(config: Any, key: str, folder: str, planned: bool) -> Finding:
    try:
        path = require_dir(folder, key, "name a folder in Hugging Face format, or run the stage that makes it")
    except ConfigError as error:
        return Finding("unknown" if planned else "refused", "inputs", str(error))
    try:
        if key.endswith("model"):
            require_model(path, 1, key)
        if key in _CHAT_MODELS and config.recipe_key != "pretrain":
            load_chat_tokenizer(path, config.chat)
        else:
            load_tokenizer(path)
    except ConfigError as error:
        return Finding("refused", "inputs", f"{key}: {error}")
    return Finding("fits", "inputs", f"{key}: {path}")


def _table(key: str, name: str, schema: pa.Schema, planned: bool) -> Finding:
    try:
        path = require_file(name, key, "check the path, or write the sample data with python -m data.clinic")
    except ConfigError as error:
        return Finding("unknown" if planned else "refused", "inputs", str(error))
    try:
        columns = _columns(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        return Finding("refused", "inputs", f"{key}: {path} cannot be read ({str(error).splitlines()[0]})")
    missing = [column for column in schema.names if column not in columns and column not in MAY_LACK]
    if missing:
        return Finding(
            "refused", "inputs", f"{key}: {path} has no column {', '.join(missing)}; it has {', '.join(columns)}"
        )
    return Finding("fits", "inputs", f"{key}: {path}")


def _columns(path: Path) -> list[str]:
    """Names of a table's columns, from Parquet's footer or a JSON table's first line."""
    if path.suffix == ".parquet":
        names: list[str] = pq.read_schema(path).names
        return names
    if path.suffix != ".jsonl":
        raise DataError("it is neither .parquet nor .jsonl")
    with path.open(encoding="utf-8") as lines:
        return list(json.loads(next(lines, "{}")))
