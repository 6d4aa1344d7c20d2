"""The sample clinic's knowledge base: the facts of each condition, loaded and checked.

Generators and checks find facts in text by their names. This is reliable only if no name is part of another, which the
loader verifies: with both "头痛" and "偏头痛", every sentence about migraine would mention both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from data.files.yaml_text import StrictLoader, read_yaml
from data.tables import DataError

CONDITIONS: Final = Path(__file__).with_name("conditions.yaml")
ATTRIBUTES: Final = ("department", "symptoms", "examinations", "medicines", "advice")
_LINE: Final = "\0line"  # key under which a mapping's line is stored; no field has this name
# Minimum and maximum number of values of each attribute that is a list.
BOUNDS: Final = {"symptoms": (3, 5), "examinations": (2, 3), "medicines": (2, 3), "advice": (2, 3)}
NAME_LENGTH: Final = (2, 6)  # characters
ADVICE_LENGTH: Final = (3, 12)


@dataclass(frozen=True)
class Condition:
    """One condition and its facts, each list in the base's order."""

    name: str
    department: str
    symptoms: tuple[str, ...]
    examinations: tuple[str, ...]
    medicines: tuple[str, ...]
    advice: tuple[str, ...]

    def values(self, attribute: str) -> tuple[str, ...]:
        """Returns the values of one of `ATTRIBUTES`; the department is a tuple of one."""
        value = getattr(self, attribute)
        return (value,) if isinstance(value, str) else value


@dataclass(frozen=True)
class Knowledge:
    """All conditions of a clinic, in the base's order."""

    conditions: tuple[Condition, ...]

    def pool(self, attribute: str) -> tuple[str, ...]:
        """Returns every distinct value of an attribute over all conditions, in order of appearance."""
        return tuple(dict.fromkeys(value for c in self.conditions for value in c.values(attribute)))

    def having(self, attribute: str, value: str) -> tuple[Condition, ...]:
        """Returns the conditions that have `value` as a value of `attribute`."""
        return tuple(c for c in self.conditions if value in c.values(attribute))


def load_knowledge(path: str | Path = CONDITIONS) -> Knowledge:
    """Loads a knowledge base and checks it.

    Raises:
        DataError: the file is missing or not YAML; a field is missing, unknown, empty, or of the wrong type or length;
            or a name is given twice or is part of another.
    """
    path = Path(path)
    entries = read_yaml(path, _LineLoader)
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path}: must be a list of conditions, one mapping each")
    knowledge = Knowledge(tuple(_condition(entry, path) for entry in entries))
    _check_names(knowledge, path)
    return knowledge


class _LineLoader(StrictLoader):
    """A loader that stores each mapping's line under the key `_LINE`."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep=deep)
        mapping[_LINE] = node.start_mark.line + 1
        return mapping


def _condition(entry: Any, path: Path) -> Condition:
    if not isinstance(entry, dict):
        raise DataError(f"{path}: each condition must be a mapping, found {entry!r}")
    where = f"{path}:{entry[_LINE]}: {entry.get('name', 'condition without a name')}"
    fields = ("name", *ATTRIBUTES)
    for field in fields:
        if field not in entry:
            raise DataError(f"{where}: '{field}' is missing; add it")
    for field in entry:
        if field not in (*fields, _LINE):
            raise DataError(f"{where}: unknown field '{field}'; use {', '.join(fields)}")
    lists = {field: _values(entry[field], bounds, f"{where}: {field}", field) for field, bounds in BOUNDS.items()}
    for field in ("name", "department"):
        _check_text(entry[field], NAME_LENGTH, f"{where}: {field}")
    return Condition(name=entry["name"], department=entry["department"], **lists)


def _values(values: Any, bounds: tuple[int, int], where: str, field: str) -> tuple[str, ...]:
    if not isinstance(values, list) or not bounds[0] <= len(values) <= bounds[1]:
        raise DataError(f"{where}: must be a list of {bounds[0]} to {bounds[1]} values, found {values!r}")
    for value in values:
        _check_text(value, ADVICE_LENGTH if field == "advice" else NAME_LENGTH, where)
        if values.count(value) > 1:
            raise DataError(f"{where}: '{value}' is given twice; remove one")
    return tuple(values)


def _check_text(value: Any, length: tuple[int, int], where: str) -> None:
    if not isinstance(value, str) or value != value.strip() or not length[0] <= len(value) <= length[1]:
        raise DataError(f"{where}: must be text of {length[0]} to {length[1]} characters, found {value!r}")


def _check_names(knowledge: Knowledge, path: Path) -> None:
    """Checks that each name stands for one thing and is not part of another name or of a piece of advice."""
    names = [c.name for c in knowledge.conditions]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{path}: the condition '{name}' is given twice; merge the two")
    kinds: dict[str, str] = dict.fromkeys(names, "name")
    for attribute in ATTRIBUTES:
        for value in knowledge.pool(attribute):
            if value in kinds:
                raise DataError(f"{path}: '{value}' is both a {kinds[value]} and one of {attribute}; rename one")
            kinds[value] = attribute
    _check_containment(list(kinds), path)


def _check_containment(names: Sequence[str], path: Path) -> None:
    for inner in names:
        for outer in names:
            if inner != outer and inner in outer:
                raise DataError(f"{path}: '{inner}' is part of '{outer}', so text cannot tell them apart; rename one")
