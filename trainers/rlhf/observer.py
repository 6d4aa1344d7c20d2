"""Hooks into an RLHF run. `benchmarks.chaos` uses them to kill processes at chosen phases."""

from __future__ import annotations

from pathlib import Path

from actors.groups.role_groups import RoleGroups


class Observer:
    """Base class of observers; every method does nothing by default."""

    def phase_begins(self, step: int, phase: str) -> None:
        """Called when `phase` of `step`, counted from 0, begins.

        The last phase is `export`, with the number of steps as `step`.
        """

    def exported(self, folder: Path, roles: RoleGroups) -> None:
        """Called when the trained policy has been exported to `folder`; `roles` are still running."""
