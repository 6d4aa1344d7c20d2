"""Stops a run whose metrics show a collapse or whose loss is not finite, before it trains on noise for days."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from actors.zero.diverged import DivergedError
from configs.errors import RunError
from data.tables import write_table
from trainers.config.rlhf import StopConfig


class CollapseError(RunError):
    """A metric of the run is not finite or violates a limit in `stop`."""


@contextmanager
def keeping_rows(folder: Path) -> Iterator[None]:
    """Writes the rows of a DivergedError raised inside the block to `folder`/not_finite.parquet.

    Raises:
        RunError: replaces the DivergedError; the message names the file.
    """
    try:
        yield
    except DivergedError as error:
        path = folder / "not_finite.parquet"
        write_table(error.rows, path)
        raise RunError(f"{error}; rows: {path}") from error


def refuse_collapse(stop: StopConfig, step: int, metrics: Mapping[str, float]) -> None:
    """Raises CollapseError if a metric of `step` is not finite or violates a limit in `stop`."""
    for name in ("reward", "policy_loss", "critic_loss", "kl_to_reference"):
        if not math.isfinite(metrics.get(name, 0.0)):
            raise CollapseError(
                f"step {step}: {name} is {metrics[name]}; lower the learning rates (optimizer.lr of policy and critic)"
            )
    entropy, kl = metrics.get("policy_entropy"), metrics.get("kl_to_reference")
    if entropy is not None and entropy < stop.entropy_below:
        raise CollapseError(
            f"step {step}: policy_entropy {entropy:.3g} is below stop.entropy_below {stop.entropy_below:g}: "
            "the policy has collapsed; raise algorithm.entropy_coef or kl_coef, or lower policy.optimizer.lr"
        )
    if kl is not None and stop.kl_above is not None and kl > stop.kl_above:
        raise CollapseError(
            f"step {step}: kl_to_reference {kl:.3g} is above stop.kl_above {stop.kl_above:g}: the policy has "
            "diverged from the reference; raise algorithm.kl_coef or lower policy.optimizer.lr"
        )
