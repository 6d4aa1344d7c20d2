"""Policy and critic of a run: the columns that they add, their updates, and their checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from actors.groups.batching import Plan, forward_rows, minibatch_plans, rows_at, rows_of
from actors.groups.group import ColumnsInFlight, WorkerGroup
from actors.groups.role_groups import LEARNERS, RoleGroups
from actors.modeling.rows import lengths, trained_rows
from actors.roles.learner import TableLoss, Update
from actors.zero.diverged import DivergedError, NotFiniteError


class Learners:
    """The trained roles. A step's rows are split into the same minibatches for the forward pass and the update.

    Args:
        roles: all roles of the run.
        minibatches: optimizer steps per pass over a step's rows.
        skips_policy: whether no column of the policy is needed before the update.
    """

    def __init__(self, roles: RoleGroups, minibatches: int, skips_policy: bool) -> None:
        self._roles, self._minibatches, self._skips_policy = roles, minibatches, skips_policy

    def submit_columns(self, table: pa.Table) -> list[ColumnsInFlight]:
        """Starts computing the policy's columns, if any are needed, and `values` for all rows; does not block."""
        shared = ray.put(table)
        groups = self._groups
        if self._skips_policy:
            groups = [group for group in groups if group.role != "policy"]
        return [
            ColumnsInFlight(group, "add_columns", shared, forward_rows(self._plans(group.role, table)))
            for group in groups
        ]

    def update(
        self, table: pa.Table, losses: Mapping[str, TableLoss], epochs: int
    ) -> dict[str, list[dict[str, float]]]:
        """Runs the optimizer steps of the roles in `losses` concurrently; returns the metrics of each step, by role.

        Args:
            table: the rows of the step, with every column that the losses need.
            losses: loss function by role ("policy", "critic").
            epochs: passes over the rows.

        Raises:
            DivergedError: a role's loss or gradient is not finite; the error holds the affected rows of `table`.
        """
        shared = ray.put(table)
        trained = trained_rows(table)
        self._roles.updated |= losses.keys()
        waiting = []
        for role, loss in losses.items():
            plans = self._plans(role, table)
            has_trained_rows = [any(trained[rows_of(mine)].any() for mine in plan) for plan in plans]
            updates = [
                [Update(plan[rank], some) for plan, some in zip(plans, has_trained_rows, strict=True)] * epochs
                for rank in range(len(plans[0]))
            ]
            waiting.append((role, plans, self._roles.groups[role].submit_rows("update", shared, updates, loss)))
        metrics = {}
        for role, plans, refs in waiting:
            try:
                metrics[role] = self._roles.groups[role].wait(refs, "update")[0]
            except NotFiniteError as error:
                rows = rows_at(plans[error.update % len(plans)], error.micro_batches)
                raise DivergedError(role, str(error), table.take(rows)) from error
        return metrics

    def save(self, folder: Path) -> None:
        """Starts writing policy and critic below `folder`; training can continue when it returns."""
        self._call("save", folder)

    def saved(self, folder: Path) -> dict[str, str]:
        """Waits until everything is on disk; returns the SHA-256 of every file, by its path below `folder`."""
        return {
            f"{role}/{path}": digest
            for role, ranks in self._call("saved", folder).items()
            for written in ranks
            for path, digest in written.items()
        }

    def load(self, folder: Path) -> None:
        """Restores policy and critic from what `save` wrote."""
        self._roles.updated |= {group.role for group in self._groups}
        self._call("load", folder)

    def reset(self) -> None:
        """Resets policy and critic to their initial weights, by replacing the processes whose weights differ from them."""
        roles = self._roles
        if roles.updated:
            ranks = {role: list(range(roles.groups[role].ranks)) for role in sorted(roles.updated)}
            roles.replace(roles.to_restart(ranks))

    @property
    def _groups(self) -> list[WorkerGroup[Any]]:
        return [self._roles.groups[role] for role in LEARNERS if role in self._roles.groups]

    def _call(self, method: str, folder: Path) -> dict[str, list[Any]]:
        """Calls `method` on all ranks of policy and critic with their folder; returns the results by role."""
        calls = [(group, group.submit(method, str(folder / group.role))) for group in self._groups]
        return {group.role: group.wait(refs, f"{method} a checkpoint") for group, refs in calls}

    def _plans(self, role: str, table: pa.Table) -> list[Plan]:
        settings = self._roles.config.context.roles[role]
        sizes = lengths(table, "prompt", "response").tolist()
        return minibatch_plans(sizes, self._minibatches, settings.placement.ranks, settings.micro_batch_tokens)
