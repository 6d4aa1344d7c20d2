"""The `--help` text of a stage: every setting with its type, default, and meaning, grouped by section."""

from __future__ import annotations

import textwrap
import types
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from configs.schema import fields, nested

_WIDTH = 110


def help_text(prog: str, stage: str, model: type[BaseModel], recipe: str) -> str:
    """Returns the help text. Defaults are the model's own, before the recipe's values are applied."""
    lines = [
        f"usage: {prog} [--config FILE] [--key=value ...]",
        "",
        *textwrap.wrap(" ".join((model.__doc__ or "").split()), _WIDTH),
        "",
        f"  --config FILE  the recipe (default: {recipe}); the settings are its `common` and `{stage}` sections",
        "  --insecure     joins a Ray cluster that other machines reach without a token (docs/security.md)",
        "  --key=value    overrides one setting below; the value is YAML: 3, 1e-5, true, word, [1, 2]",
    ]
    return "\n".join([*lines, *settings_text(stage, model)])


def settings_text(stage: str, model: type[BaseModel], prefix: str = "--") -> list[str]:
    """Returns lines that describe every setting, grouped by section; `prefix` precedes each setting's name."""
    lines: list[str] = []
    section = None
    for path, info in fields(model):
        owner = path.rpartition(".")[0]
        if owner != section:
            section = owner
            lines += ["", f"{section or stage}:", *_section_text(model, section)]
        lines += _field_text(prefix + path, info)
    return lines


def _section_text(model: type[BaseModel], section: str) -> list[str]:
    """Returns the description of the field that holds a section."""
    current, about = model, ""
    for name in section.split(".") if section else []:
        info = current.model_fields[name]
        about, current = info.description or "", nested(info.annotation) or current
    return textwrap.wrap(about, _WIDTH, initial_indent="  ", subsequent_indent="  ") if about else []


def _field_text(name: str, info: FieldInfo) -> list[str]:
    default = (
        "required" if info.is_required() else f"default {_value_text(info.get_default(call_default_factory=True))}"
    )
    bounds = "".join(
        f" {sign} {getattr(bound, attribute)}"
        for bound in info.metadata
        for attribute, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))
        if getattr(bound, attribute, None) is not None
    )
    about = " ".join((info.description or "").split())
    head = f"  {name}  {_type_text(info.annotation)}{bounds} ({default})"
    return [head, *textwrap.wrap(about, _WIDTH, initial_indent="      ", subsequent_indent="      ")]


def _type_text(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " | ".join(map(_type_text, arguments))
    if origin is Literal:
        return " | ".join(map(_value_text, arguments))
    if origin is not None and hasattr(annotation, "__metadata__"):
        return _type_text(origin)
    if origin is not None:
        return f"{origin.__name__}[{', '.join('...' if a is ... else _type_text(a) for a in arguments)}]"
    return "null" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))


def _value_text(value: Any) -> str:
    """Formats a value as it is written in a recipe."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value_text, value))}]"
    return str(value) if str(value) else '""'
