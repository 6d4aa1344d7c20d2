"""The driver of a disturbed run: trainers.ppo with an observer that writes to a pipe at the start of every phase.

    python -m benchmarks.chaos.driver FD --config FILE

It also exports the critic's final weights, which trainers.ppo does not, so that they can be compared.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from actors.groups.role_groups import RoleGroups
from trainers import ppo
from trainers.rlhf.observer import Observer


class Announcer(Observer):
    """Writes the JSON line `[step, phase, time]` to a pipe at the start of every phase.

    Steps are counted from 0. The time is `time.monotonic()`, in seconds.
    """

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def phase_begins(self, step: int, phase: str) -> None:
        """See `Observer`."""
        os.write(self._pipe, (json.dumps([step, phase, time.monotonic()]) + "\n").encode())

    def exported(self, folder: Path, roles: RoleGroups) -> None:
        """See `Observer`."""
        roles.groups["critic"].call("export", str(folder.with_name("critic")))


def main() -> None:
    """Runs the driver to the end."""
    ppo.main(sys.argv[2:], [Announcer(int(sys.argv[1]))])


if __name__ == "__main__":
    main()
