"""Suggests the smallest change of settings with which a stage fits: of one setting, or else of several of one role."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from trainers.config.supervised import StageConfig

Change = tuple[str, Any]
"""A dotted key and its new value."""

Fits = Callable[[StageConfig], bool]

LEAST_TOKENS = 256  # smallest micro-batch that is suggested; with smaller ones, overhead dominates


def nearest(config: StageConfig, fits: Fits) -> str | None:
    """Returns flags such as `--policy.placement.ranks=8` with which `fits` is true; None if no candidate fits.

    Changes of a single setting are tried first, in this order:

    1. for each role, recomputing activations, then ZeRO stage 3;
    2. for each role, smaller micro-batches, then for its engine a larger KV cache on a CPU (`kv_cache_bytes`), a
       `gpu_memory_utilization` of 0.9 or 0.95 if it is lower, a shorter context, and fewer processes;
    3. for each role, more or fewer ranks;
    4. for each role, smaller `cpus_per_rank`, then smaller `gpus_per_rank`;
    5. `colocate: all`: all roles share one placement group;
    6. `sleep: true`: roles that share GPUs take turns;
    7. keeping only one checkpoint.

    The values of a setting are tried from the nearest to the current one to the farthest. If no single change fits,
    changes of one role are combined, role by role: recomputing activations, ZeRO stage 3, smaller micro-batches, and
    a different number of ranks, each together with the farthest values of those before it.
    """
    single = list(_single(config))
    for change in single:
        changed = changed_by(config, [change])
        if changed is not None and fits(changed):
            return _flags([change])
    for prefix in _roles(config):
        together: list[Change] = []
        for key in ("zero.gradient_checkpointing", "zero.stage", "micro_batch_tokens", "placement.ranks"):
            values = [change for change in single if change[0] == prefix + key]
            for change in values:
                changed = changed_by(config, [*together, change])
                if changed is not None and fits(changed):
                    return _flags([*together, change])
            together += values[-1:] if key != "placement.ranks" else []
    return None


def without_gpus(config: StageConfig) -> str:
    """Returns flags such as `--placement.gpus_per_rank=0` that move all roles to CPUs; empty if none reserves a GPU."""
    values, changes = config.model_dump(mode="json"), list[Change]()
    for prefix in _roles(config):
        placement = _at(values, prefix)["placement"]
        if placement["gpus_per_rank"]:
            changes.append((f"{prefix}placement.gpus_per_rank", 0))
            changes += [] if placement["cpus_per_rank"] else [(f"{prefix}placement.cpus_per_rank", 1)]
    return _flags(changes)


def changed_by(config: StageConfig, changes: list[Change]) -> StageConfig | None:
    """Returns the settings with `changes` applied; None if they would be invalid."""
    values = config.model_dump(mode="json")
    for key, value in changes:
        *path, last = key.split(".")
        section = values
        for name in path:
            section = section[name]
        section[last] = value
    try:
        return type(config).model_validate_json(json.dumps(values))
    except ValidationError:
        return None


def _single(config: StageConfig) -> Iterator[Change]:
    values = config.model_dump(mode="json")
    sections = {prefix: _at(values, prefix) for prefix in _roles(config)}
    for prefix, section in sections.items():
        zero = section.get("zero")
        if zero and not zero["gradient_checkpointing"]:
            yield f"{prefix}zero.gradient_checkpointing", True
        if zero and zero["stage"] < 3:
            yield f"{prefix}zero.stage", 3
    for prefix, section in sections.items():
        tokens = section.get("micro_batch_tokens", 0) // 2
        while tokens >= LEAST_TOKENS:
            yield f"{prefix}micro_batch_tokens", tokens
            tokens //= 2
        yield from _engine(prefix, section.get("engine"))
    for prefix, section in sections.items():
        ranks = section["placement"]["ranks"]
        others = [*range(ranks + 1, 4 * ranks + 1), *range(ranks - 1, 0, -1)]
        yield from ((f"{prefix}placement.ranks", count) for count in sorted(others, key=lambda n: abs(n - ranks)))
    for prefix, section in sections.items():
        for name in ("cpus_per_rank", "gpus_per_rank"):
            share = section["placement"][name]
            lower = [0.9 * share * 0.9**step for step in range(60)]
            yield from ((f"{prefix}placement.{name}", round(value, 2)) for value in lower if value >= 0.01)
    if values.get("colocate", "all") != "all":
        yield "colocate", "all"
    if values.get("sleep") is False:
        yield "sleep", True
    for prefix in ("", "sft."):
        if _at(values, prefix).get("keep_checkpoints", 1) > 1:
            yield f"{prefix}keep_checkpoints", 1


def _engine(prefix: str, engine: dict[str, Any] | None) -> Iterator[Change]:
    if engine:
        for factor in (2, 4, 8, 16, 32):
            yield f"{prefix}engine.kv_cache_bytes", engine["kv_cache_bytes"] * factor
        for share in (0.9, 0.95):
            if share > engine["gpu_memory_utilization"]:
                yield f"{prefix}engine.gpu_memory_utilization", share
        for part in (2, 4, 8, 16):
            yield f"{prefix}engine.max_model_len", engine["max_model_len"] // part
        yield from (
            (f"{prefix}engine.tensor_parallel_size", size) for size in range(engine["tensor_parallel_size"] - 1, 0, -1)
        )


def _roles(config: StageConfig) -> list[str]:
    """Returns the key prefixes of the sections with a placement, including "" for the settings themselves."""
    names = [name for name in type(config).model_fields if hasattr(getattr(config, name), "placement")]
    return [*([""] if hasattr(config, "placement") else []), *(f"{name}." for name in names)]


def _at(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    section: dict[str, Any] = values.get(prefix.removesuffix("."), {}) if prefix else values
    return section


def _flags(changes: list[Change]) -> str:
    return " ".join(
        f"--{key}={json.dumps(value) if isinstance(value, bool) else f'{value:g}' if isinstance(value, float) else value}"
        for key, value in changes
    )
