"""Resolves `dtype: auto` to bfloat16 on GPUs and float32 on CPUs. Imports no torch.

The value is resolved when settings are validated, depending on whether the role has GPUs, so config.yaml, the
preflight, and checkpoints contain the resolved value, never `auto`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeVar

from configs.base import Section

Precision = Literal["float32", "bfloat16"]
Dtype = Literal["auto", "float32", "bfloat16"]

AUTO = "auto is bfloat16 on GPUs, float32 on CPUs"
"""Part of the help of every dtype setting."""

SectionT = TypeVar("SectionT", bound=Section)


def resolve_dtype(dtype: Dtype, on_gpus: bool) -> Precision:
    """Returns the precision of a dtype setting; `auto` depends on `on_gpus`."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if on_gpus else "float32"


def settle_dtype(section: SectionT, on_gpus: bool) -> SectionT:
    """Resolves the `dtype` of a section during validation and returns the section. Call it from a model validator.

    A dtype that was `auto` stays marked as unset, so that the parent section, which may have GPUs, resolves it again.
    """
    values, given = vars(section), section.model_fields_set
    if values["dtype"] == "auto":
        given.discard("dtype")
    if "dtype" not in given:
        values["dtype"] = resolve_dtype("auto", on_gpus)
    return section


def settle_dtype_of(parent: SectionT, name: str, on_gpus: bool) -> SectionT:
    """Applies `settle_dtype` to the section in field `name` of `parent`, which is being validated."""
    vars(parent)[name] = settle_dtype(getattr(parent, name).model_copy(), on_gpus)  # a copy: defaults are shared
    return parent


def automatic_dtypes(config: Section, prefix: str = "") -> Iterator[str]:
    """Yields the dotted keys of all dtypes in `config` that were unset or `auto`."""
    for name, value in config:
        if isinstance(value, Section):
            yield from automatic_dtypes(value, f"{prefix}{name}.")
        elif name == "dtype" and name not in config.model_fields_set:
            yield prefix + name
