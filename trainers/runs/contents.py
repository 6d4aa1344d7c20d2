"""Records the content of a run's input files, so that a resumed run rejects a file that has changed since its start.

    runs/NAME/inputs.json    {"data.train[0]": {"part-00000.parquet":
                                 {"bytes": ..., "mtime_ns": ..., "ctime_ns": ..., "digest": ...}}}

Files are hashed completely, except that of a weights file larger than 64 MiB, only the size and the first and last MiB
are hashed. A file whose size, mtime, and ctime are as recorded is not read again; programs cannot set the ctime. Models
and tables from the Hub have a commit in their name instead.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from configs.base import Section
from configs.errors import ConfigError
from data.tables import table_files
from storage.durable import checked_json, json_with_checksum, replace_file, sha256
from storage.paths import resolve, table_path
from trainers.runs.pinning import MODEL_KEYS, TABLE_KEYS, named

logger = logging.getLogger(__name__)

FILE = "inputs.json"
_WHOLE_BYTES, _END_BYTES = 2**26, 2**20
_FILE_KEYS = ("file", "template")
_OF_A_MODEL = (
    *("*.safetensors", "*.bin", "*.model", "*.index.json", "*config.json"),
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "chat_template*"),
)
"""The files of a model folder that affect its outputs."""

_Record = dict[str, Any]


def require_same_contents(run: Path, config: Section) -> None:
    """Records the content of the files that `config` names, or compares it with the record from the run's start.

    Args:
        run: the run's folder.

    Raises:
        ConfigError: a file has changed, or was added to or removed from a folder; the message names the setting and
            the file.
        DiskError: the record cannot be written.
    """
    path = run / FILE
    stored = _read(path)
    found: dict[str, dict[str, _Record]] = {}
    for key, files in _inputs(config):
        before = stored.get(key, {})
        found[key] = {name: _record(file, before.get(name)) for name, file in files.items()}
        if key in stored and (changed := _first_changed(before, found[key])):
            raise ConfigError(
                f"{key}: {files.get(changed, changed)} has changed since {run} was started; restore it, choose "
                "another run name, or delete the run's folder"
            )
    kept = {**stored, **found}  # keeps the records of inputs that are missing now
    if kept != stored:
        replace_file(path, json_with_checksum(kept))


def _first_changed(before: dict[str, _Record], now: dict[str, _Record]) -> str | None:
    """Returns the name of the first file, in alphabetical order, that has changed, is new, or is missing; else None."""
    names = sorted({*before, *now})
    return next((name for name in names if before.get(name, {}).get("digest") != now.get(name, {}).get("digest")), None)


def _read(path: Path) -> dict[str, dict[str, _Record]]:
    if not path.exists():
        return {}
    if (content := checked_json(path.read_bytes())) is not None:
        return content
    logger.warning("%s: damaged; recording the checksums of the run's inputs again", path)
    return {}


def _inputs(config: Section) -> Iterator[tuple[str, dict[str, Path]]]:
    """Yields each setting that names local files, with these files by name. The stage itself reports missing files."""
    values = config.model_dump(mode="json")
    for key, name, _ in named(values, TABLE_KEYS):
        path = table_path(name)
        if isinstance(path, Path) and path.exists():
            yield key, {file.name: file for file in table_files(path)}
    for key, name, _ in named(values, MODEL_KEYS):
        folder = resolve(name)
        if folder.is_dir():
            kept = (file for file in sorted(folder.iterdir()) if any(fnmatch(file.name, p) for p in _OF_A_MODEL))
            yield key, {file.name: file for file in kept if file.is_file()}
    for key, name, _ in named(values, _FILE_KEYS):
        file = resolve(name)
        if file.is_file():
            yield key, {file.name: file}


def _record(file: Path, before: _Record | None) -> _Record:
    status = file.stat()
    found = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns}
    if before is not None and found.items() <= before.items():
        return before
    large_weights = status.st_size > _WHOLE_BYTES and file.suffix in (".safetensors", ".bin")
    return {**found, "digest": _ends(file, status.st_size) if large_weights else sha256(file)}


def _ends(file: Path, size: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as content:
        digest.update(content.read(_END_BYTES))
        content.seek(-_END_BYTES, os.SEEK_END)
        digest.update(content.read(_END_BYTES))
    return f"ends:{digest.hexdigest()}"
