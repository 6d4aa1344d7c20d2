"""Reads recipe files: strict YAML that records the line of every key.

Numbers and booleans follow YAML 1.2: `1e-5` is a float, and `on` is a string. PyYAML's YAML 1.1 rules would read the
first as a string and the second as true.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from configs.errors import ConfigError

Key = tuple[str | int, ...]
"""The path of a value in a recipe, such as `("ppo", "rollout", "batch")`; list items are addressed by index."""

_SCALARS = (
    ("null", r"~|null|Null|NULL|", [*"~nN", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("int", r"[-+]?[0-9][0-9_]*", [*"-+0123456789"]),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", [*"-+.0123456789"]),
)


class _Loader(yaml.SafeLoader):
    """A YAML loader that resolves only the scalars above; every other scalar is a string."""


class _Dumper(yaml.SafeDumper):
    """A YAML dumper that quotes strings that `_Loader` would resolve to another type."""


for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = {}  # drop the YAML 1.1 resolvers
    for _tag, _pattern, _first in _SCALARS:
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


@dataclass(frozen=True)
class Recipe:
    """The content of a recipe file, and the line (from 1) of every key in it."""

    name: str
    values: dict[str, Any]
    lines: dict[Key, int] = field(default_factory=dict)
    numbered: bool = True  # False for a command-line value, which has no lines

    def where(self, key: Key) -> str:
        """Returns `file:line` of a key or of its nearest enclosing key in the file; only `file` if there is none."""
        while key and key not in self.lines:
            key = key[:-1]
        return self.at(self.lines[key] - 1) if key else self.name

    def at(self, line: int) -> str:
        """Returns `file:line` for a line counted from 0."""
        return f"{self.name}:{line + 1}" if self.numbered else self.name


def read_recipe(path: Path, name: str) -> Recipe:
    """Reads a recipe; messages refer to the file as `name`.

    Raises:
        ConfigError: the file is unreadable, is not valid YAML, has a duplicate key, or its top level is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise ConfigError(f"{name}: is not UTF-8 text; save the file as UTF-8") from error
        raise ConfigError(f"{name}: cannot be read ({error.strerror}); check its path and permissions") from error
    recipe = Recipe(name, {})
    values = _parse(text, recipe)
    if not isinstance(values, dict):
        raise ConfigError(f"{name}: a recipe is a mapping of stages such as `ppo:`, not {short(values)}")
    recipe.values.update(values)
    return recipe


def read_value(text: str, flag: str) -> Any:
    """Parses the value of a command-line override: a YAML scalar or list."""
    return _parse(text, Recipe(flag, {}, numbered=False))


def write_yaml(values: Mapping[str, Any], path: Path) -> None:
    """Writes `values` as YAML that `read_recipe` reads back unchanged."""
    path.write_text(yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _written(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_written(each)}' for key, each in value.items())}}}"
    return repr(value)


def short(value: Any, spell: Callable[[Any], str] = _written) -> str:
    """Formats a value for messages: one line, at most 60 characters.

    Args:
        value: the value.
        spell: returns its text; default: as a recipe has it, e.g. `null`.
    """
    text = " ".join(spell(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


def _parse(text: str, recipe: Recipe) -> Any:
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        where = recipe.at(error.problem_mark.line) if error.problem_mark else recipe.name
        raise ConfigError(f"{where}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{recipe.name}: not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ConfigError(f"{recipe.name}: not usable YAML: nested too deeply") from error
    return None if node is None else _build(node, (), recipe, frozenset())


def _build(node: yaml.Node, key: Key, recipe: Recipe, parents: frozenset[int]) -> Any:
    """Converts a YAML node to plain Python values, records the lines of its keys, and rejects unsupported YAML."""
    where = recipe.at(node.start_mark.line)
    if id(node) in parents:
        raise ConfigError(f"{where}: an alias (`*name`) that contains itself; write the value out")
    parents |= {id(node)}
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for name_node, value_node in _pairs(node, recipe, parents):
            name = name_node.value
            recipe.lines[(*key, name)] = name_node.start_mark.line + 1
            result[name] = _build(value_node, (*key, name), recipe, parents)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*key, index), recipe, parents) for index, item in enumerate(node.value)]
    return _scalar(node, where)


def _pairs(node: yaml.MappingNode, recipe: Recipe, parents: frozenset[int]) -> list[tuple[yaml.Node, yaml.Node]]:
    """Returns the key and value nodes of a mapping, including those merged in with `<<: *name`.

    Merged keys come first; the mapping's own values override them.
    """
    own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for name_node, value_node in node.value:
        name = name_node.value
        here = recipe.at(name_node.start_mark.line)
        if not isinstance(name, str):
            raise ConfigError(f"{here}: a key must be a plain word, not a list or a mapping")
        if name in own:
            first = own[name][0].start_mark.line + 1
            raise ConfigError(f"{here}: key '{name}' is given twice (first on line {first}); remove one of them")
        own[name] = name_node, value_node
    if "<<" not in own:
        return [*own.values()]
    name_node, value_node = own.pop("<<")
    merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for source in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
        here = recipe.at(name_node.start_mark.line)
        if not isinstance(source, yaml.MappingNode):
            raise ConfigError(f"{here}: `<<` merges mappings; give one as `<<: *name`, or a list of them")
        if id(source) in parents:
            raise ConfigError(f"{here}: an alias (`*name`) that contains itself; write the value out")
        for pair in _pairs(source, recipe, parents | {id(source)}):
            merged.setdefault(pair[0].value, pair)
    return [*{**merged, **own}.values()]


def _scalar(node: yaml.Node, where: str) -> Any:
    kind, text = node.tag.removeprefix("tag:yaml.org,2002:"), node.value
    if kind == "str":
        return text
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    try:
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
    except ValueError as error:
        raise ConfigError(f"{where}: {text!r} is not a number") from error
    raise ConfigError(f"{where}: the YAML tag {node.tag!r} has no meaning in a recipe; remove it")
