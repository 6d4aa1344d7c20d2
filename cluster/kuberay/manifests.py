"""Reads Kubernetes objects from YAML files, or from kustomize folders, which kubectl or kustomize renders."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from configs.errors import ConfigError
from configs.recipe import Key

_RENDERERS = (("kubectl", "kustomize"), ("kustomize", "build"))
_SECONDS_TO_RENDER = 60.0


@dataclass(frozen=True)
class Manifest:
    """One Kubernetes object."""

    source: str  # path of the file or folder, as given
    content: dict[str, Any]
    lines: dict[Key, int] = field(default_factory=dict)  # line numbers from 1; empty for rendered objects

    @property
    def kind(self) -> str:
        """The object's kind."""
        return str(self.content.get("kind"))

    @property
    def name(self) -> str:
        """The object's name."""
        name = mapping(self.content.get("metadata")).get("name")
        return str(name) if name else "(no name)"

    def where(self, key: Key) -> str:
        """Returns `file:line` of a key, or of its nearest parent; only the source for rendered objects."""
        while key and key not in self.lines:
            key = key[:-1]
        return f"{self.source}:{self.lines[key]}" if key in self.lines else self.source

    def at(self, *key: str | int) -> Any:
        """Returns the value at a key; None if it does not exist, even if a parent has another type."""
        value: Any = self.content
        for part in key:
            if isinstance(value, dict) or (isinstance(value, list) and isinstance(part, int) and part < len(value)):
                value = value.get(part) if isinstance(value, dict) else value[int(part)]
            else:
                return None
        return value


@dataclass(frozen=True)
class Problem:
    """A problem in an object."""

    manifest: Manifest
    key: Key
    text: str  # what is wrong; what to do

    def __str__(self) -> str:
        where = self.manifest.where(self.key)
        return f"{where}: {self.manifest.kind}/{self.manifest.name}: {dotted(self.key)}: {' '.join(self.text.split())}"


def read(path: str) -> list[Manifest]:
    """Reads the objects of a YAML file, or of a folder with a kustomization.

    Raises:
        ConfigError: the input cannot be read, is not YAML, has a duplicate key, contains something that is not a
            Kubernetes object, or cannot be rendered.
    """
    where = Path(path)
    if where.is_dir():
        return list(_parse(_render(where, path), path, rendered=True))
    try:
        return list(_parse(where.read_text(encoding="utf-8"), path, rendered=False))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read ({reason}); name a YAML file or a kustomize folder") from error


def renderer() -> tuple[str, str] | None:
    """Returns the installed command that renders kustomize folders; None if none is installed."""
    return next((command for command in _RENDERERS if shutil.which(command[0])), None)


def mapping(value: Any) -> dict[Any, Any]:
    """Returns `value` if it is a mapping, else an empty one: wrong types are reported by the schemas, not by rules."""
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    """Returns `value` if it is a list, else an empty list, like `mapping`."""
    return value if isinstance(value, list) else []


def dotted(key: Key) -> str:
    """Formats a key: `spec.workerGroupSpecs[1].minReplicas`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)
    return text.lstrip(".") or "(the object)"


def _render(folder: Path, name: str) -> str:
    if not (folder / "kustomization.yaml").is_file():
        raise ConfigError(f"{name}: has no kustomization.yaml; name a YAML file or a kustomize folder")
    command = renderer()
    if command is None:
        raise ConfigError(f"{name}: a kustomize folder needs kubectl or kustomize on the PATH; install one")
    try:
        done = subprocess.run(
            [*command, str(folder)], capture_output=True, text=True, timeout=_SECONDS_TO_RENDER, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(
            f"{name}: does not render within {_SECONDS_TO_RENDER:.0f} s; check the remote resources that it fetches"
        ) from error
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ConfigError(f"{name}: does not render: {words[-1]}")
    return done.stdout


def _parse(text: str, source: str, *, rendered: bool) -> Iterator[Manifest]:
    try:
        for node in yaml.compose_all(text, Loader=yaml.SafeLoader):
            lines: dict[Key, int] = {}
            _note_lines(node, (), lines, source)
            content = yaml.SafeLoader("").construct_document(node)
            if content is None:  # an empty document, or only a comment
                continue
            if not isinstance(content, dict) or not all(
                isinstance(content.get(k), str) for k in ("apiVersion", "kind")
            ):
                raise ConfigError(
                    f"{source}:{node.start_mark.line + 1}: not a Kubernetes object; give it apiVersion and kind"
                )
            yield Manifest(source, content, {} if rendered else lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{source}:{mark.line + 1}" if mark else source
        raise ConfigError(f"{where}: not valid YAML: {error.problem}") from error


def _note_lines(node: yaml.Node | None, key: Key, lines: dict[Key, int], source: str) -> None:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            here = (*key, str(name.value))
            if here in lines:
                raise ConfigError(
                    f"{source}:{name.start_mark.line + 1}: {dotted(here)} is given twice (first on line {lines[here]}); "
                    f"remove one of them"
                )
            lines[here] = name.start_mark.line + 1
            _note_lines(value, here, lines, source)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[*key, index] = item.start_mark.line + 1
            _note_lines(item, (*key, index), lines, source)
