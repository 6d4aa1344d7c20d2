"""The driver of a disturbed run: trainers.ppo as it is, but for a word in a pipe at the start of every phase.

    python -m benchmarks.chaos.driver FD --config FILE

It also writes the critic's last weights beside the policy's, which trainers.ppo has no use for.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from actors.groups.team import Team
from trainers import ppo
from trainers.rlhf.supervision import Supervisor
from trainers.runs.export import export_model
from trainers.runs.phases import Phases

_current: dict[str, Any] = {}


class KnownTeam(Team):
    """A team that can be found for the critic's weights."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        _current["team"] = self


class KnownSupervisor(Supervisor):
    """A supervisor that can be asked for the step."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        _current["supervisor"] = self


class AnnouncedPhases(Phases):
    """Phases that are announced."""

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        announce(_current["supervisor"].step, name)
        with super().__call__(name):
            yield


def announce(step: int, phase: str) -> None:
    """One line: the step from 0, the phase, and the time on the machine's monotonic clock."""
    os.write(_current["pipe"], (json.dumps([step, phase, time.monotonic()]) + "\n").encode())


def export_both(folder: Path, *arguments: Any) -> None:
    """The policy as it is exported, and the critic."""
    announce(_current["supervisor"].step + 1, "export")
    export_model(folder, *arguments)
    _current["team"].groups["critic"].call("export", str(folder.with_name("critic")))


def main() -> None:
    _current["pipe"] = int(sys.argv[1])
    for name, mine in {
        "Team": KnownTeam,
        "Supervisor": KnownSupervisor,
        "Phases": AnnouncedPhases,
        "export_model": export_both,
    }.items():
        setattr(ppo, name, mine)
    ppo.main(sys.argv[2:])


if __name__ == "__main__":
    main()
