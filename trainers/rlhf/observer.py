"""What happens in a run of RLHF, for others to follow: benchmarks.chaos kills processes at phases of their choice."""

from __future__ import annotations

from pathlib import Path

from actors.groups.team import Team


class Observer:
    """Base of observers; each method does nothing by default."""

    def phase_begins(self, step: int, phase: str) -> None:
        """Phase `phase` of `step`, from 0, begins. The last one is `export`, whose step is the number of steps."""

    def exported(self, folder: Path, team: Team) -> None:
        """The trained policy is in `folder`; the roles of `team` are still there."""
