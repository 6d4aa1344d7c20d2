"""Tables of the Hugging Face Hub: `hf://datasets/org/name[@revision][/path]` as local files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from configs.errors import ConfigError
from data.hub import Repository, download, files_of, parse_model, pinned

PREFIX = "hf://datasets/"
_FORM = "write hf://datasets/org/name[@revision][/split]"
TABLES = (".parquet", ".jsonl")
_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def is_hub_table(name: str | Path) -> bool:
    """Returns whether `name` names a table of the Hub rather than a path."""
    return isinstance(name, str) and name.startswith("hf://")


def parse_table(name: str) -> tuple[Repository, str]:
    """Returns the repository of a table's name, and the split or path within it.

    Raises:
        ConfigError: the name does not have the form `hf://datasets/org/name[@revision][/path]`.
    """
    parts = name.removeprefix(PREFIX).split("/", 2)
    repository = parse_model("/".join(parts[:2])) if name.startswith(PREFIX) else None
    if repository is None:
        raise ConfigError(f"{name}: is not the name of a table; {_FORM}")
    return replace(repository, kind="dataset"), parts[2].strip("/") if len(parts) > 2 else ""


def pinned_table(name: str) -> str:
    """Returns the name with its revision replaced by the current commit.

    Raises:
        ConfigError: see `data.hub.pinned`.
    """
    repository, inside = parse_table(name)
    return f"{PREFIX}{pinned(repository)}" + (f"/{inside}" if inside else "")


def hub_table_files(name: str, suffixes: tuple[str, ...] = TABLES) -> list[Path]:
    """Returns local copies of the table's files, sorted by name; downloads those that are not in the cache.

    Raises:
        ConfigError: see `data.hub.pinned`; or the split has no files with these suffixes.
    """
    repository, inside = parse_table(name)
    repository = pinned(repository)
    files = chosen(files_of(repository), inside, name, suffixes)
    folder = download(repository, files)
    return [folder / file for file in files]


def chosen(files: Sequence[str], inside: str, name: str, suffixes: tuple[str, ...] = TABLES) -> list[str]:
    """Selects the files of a repository that a table consists of.

    Args:
        files: paths of all files of the repository.
        inside: a file, a folder, a split, or a folder and a split; empty for a repository whose files are all of one
            split. A split is found by its name in the files' paths, as in `data/train-00000-of-00002.parquet`.
        name: the table's name, for messages.
        suffixes: endings of the files that can be tables.

    Raises:
        ConfigError: there is no such file, or there are several splits or folders to choose from.
    """
    tables = sorted(file for file in files if file.endswith(suffixes))
    if inside in tables:
        return [inside]
    folder, _, split = inside.rpartition("/")
    found = [file for file in tables if file.startswith(f"{inside}/")] if inside else tables
    if not found:
        words = next((words for words in _SPLITS.values() if split in words), (split,))
        below = [file for file in tables if not folder or file.startswith(f"{folder}/")]
        found = [file for file in below if any(_has_word(file.removeprefix(folder), word) for word in words)]
    if not found:
        others = sorted({split for split in map(_split_of, tables) if split})
        has = f"it has {', '.join(others or tables[:5])}" if tables else f"it has no {' or '.join(suffixes)} files"
        raise ConfigError(f"{name}: has no {inside or 'table'}; {has}")
    splits = sorted({_split_of(file) or "" for file in found})
    if len(splits) > 1:
        given = [split or "files of no split" for split in splits]
        raise ConfigError(f"{name}: has {', '.join(given)}; name one, as in {name.rstrip('/')}/{splits[-1]}")
    kinds = sorted({f"{Path(file).parent}/*{Path(file).suffix}" for file in found})
    if len(kinds) > 1:
        raise ConfigError(f"{name}: stands for {', '.join(kinds)}; name one folder or file of them")
    return found


def _split_of(file: str) -> str | None:
    return next((split for split, words in _SPLITS.items() if any(_has_word(file, word) for word in words)), None)


def _has_word(file: str, word: str) -> bool:
    return re.search(rf"(?:^|[-._/ ]){re.escape(word)}(?:$|[-._/ 0-9])", file) is not None
