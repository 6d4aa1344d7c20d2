"""The table's schema at each point of a step, which depends on the run's settings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from actors.table import COLUMNS, SOURCE, column_of
from trainers.config.rlhf import PPOConfig

_OPTIONAL = ("versions", "returns")


@dataclass(frozen=True)
class Schemas:
    """Schemas of the table at the points of a step, in the order in which the table passes them.

    Attributes:
        prompts: the prompts of the step.
        responses: the prompts with their responses and, if dynamic sampling selects responses by reward, their rewards.
        scored: the responses with the columns that the frozen roles, the policy, and the critic add.
        trainable: the scored responses with the columns that the driver adds for the losses.
    """

    prompts: pa.Schema
    responses: pa.Schema
    scored: pa.Schema
    trainable: pa.Schema

    @classmethod
    def of(cls, config: PPOConfig) -> Schemas:
        """Returns the schemas of a run with these settings."""
        algorithm = config.algorithm
        prompts = _added_by("prompts")
        sampled = [*prompts, *_added_by("rollout"), *(["versions"] if config.rollout.in_flight != "none" else [])]
        rewards = [SOURCE + name for name in config.reward_weights]
        frozen = [name for role in ("critic", "reference") if role in config.roles for name in _added_by(role)]
        scored = [*sampled, *rewards, *frozen, *config.policy_columns]
        driver = [*_added_by("driver"), *(["returns"] if algorithm.has_critic else [])]
        return cls(
            prompts=_schema(prompts),
            responses=_schema([*sampled, *(rewards if algorithm.dynamic_sampling else [])]),
            scored=_schema(scored),
            trainable=_schema([*scored, *driver]),
        )


def _added_by(role: str) -> list[str]:
    """Returns the columns that `role` always adds."""
    return [name for name, column in COLUMNS.items() if column.by == role and name not in _OPTIONAL]


def _schema(names: Iterable[str]) -> pa.Schema:
    return pa.schema([(name, column_of(name).type) for name in names])
