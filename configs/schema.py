"""Traversal of the fields of nested settings models."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo


def nested(annotation: Any) -> type[BaseModel] | None:
    """Returns the settings model of an annotation `M` or `M | None`; None for any other annotation."""
    if get_origin(annotation) in (Union, types.UnionType):
        models = [arm for arm in map(nested, get_args(annotation)) if arm]
        return models[0] if len(models) == 1 else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yields every field that holds a value, with its dotted path: a model's own fields first, then its sections'."""
    sections: list[tuple[str, type[BaseModel]]] = []
    for name, info in model.model_fields.items():
        below = nested(info.annotation)
        if below is None:
            yield prefix + name, info
        else:
            sections.append((name, below))
    for name, below in sections:
        yield from fields(below, f"{prefix}{name}.")


def field_paths(model: type[BaseModel]) -> list[str]:
    """Returns the dotted paths of `fields`."""
    return [path for path, _ in fields(model)]


def section_at(model: type[BaseModel], key: Sequence[str | int]) -> type[BaseModel] | None:
    """Returns the settings model at the path `key`.

    Returns None if the path does not exist or ends at a field that is not a settings model.
    """
    current: type[BaseModel] | None = model
    for part in key:
        info = current.model_fields.get(str(part)) if current else None
        current = nested(info.annotation) if info else None
    return current
