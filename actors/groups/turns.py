"""The turns of roles that share GPUs: which of them hold memory there, and how much.

A role's processes hold nothing, their weights, or all that they can (`actors.device_memory.Resident`):

    nothing ──► weights: a forward pass, or receiving weights ──► all: an update, or generation
       ▲            │                                              │
       └────────────┴──────────── another role's turn ◄────────────┘

A role gets its turn when one of its methods is called that needs more than it holds, as loading its model does: first all
roles that share GPUs with it free theirs, after the calls that they are busy with. Two roles hold memory at the same time
only if `take` names both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol

from actors.device_memory import ORDER, Resident


class Group(Protocol):
    """What turns need of a worker group."""

    def submit(self, method: str, *arguments: Any) -> list[Any]:
        """Calls `method` on every rank; does not block."""

    def wait(self, refs: list[Any], doing: str) -> list[Any]:
        """Waits for `refs`, and returns their values."""


class Turns:
    """What each role holds on GPUs that it shares with others.

    Args:
        groups: the roles' processes, by role.
        sharing: the roles of each placement group that take turns; there are none if all roles hold everything always.
    """

    def __init__(self, groups: Mapping[str, Group], sharing: Iterable[Collection[str]] = ()) -> None:
        self._groups, self._sharing = groups, [frozenset(roles) for roles in sharing]
        # None if it is not known: some processes are new, or a call failed.
        self._resident: dict[str, Resident | None] = {role: "nothing" for roles in self._sharing for role in roles}

    def replaced(self, role: str) -> None:
        """Notes that some of the role's processes are new and have not loaded their models yet."""
        if role in self._resident:
            self._resident[role] = None

    def need(self, role: str, resident: Resident) -> None:
        """Gives `role` its turn, unless it holds `resident` or more."""
        held = self._resident.get(role, "all")
        if resident != "nothing" and (held is None or ORDER.index(held) < ORDER.index(resident)):
            self.take({role: resident})

    def take(self, wanted: Mapping[str, Resident]) -> None:
        """Makes the roles in `wanted` hold exactly that, and those that share GPUs with any of them nothing.

        Waits for the calls that these roles are busy with.

        Raises:
            RoleDied: a role's process died or did not respond in time.
        """
        self._make_room(wanted.keys())
        self._change({role: resident for role, resident in wanted.items() if role in self._resident})

    def _make_room(self, wanted: Collection[str]) -> None:
        sharing = [roles for roles in self._sharing if roles & set(wanted)]
        others = frozenset().union(*sharing) - set(wanted)
        self._change(dict.fromkeys(sorted(others), "nothing"))

    def _change(self, wanted: Mapping[str, Resident]) -> None:
        frees = {role for role, resident in wanted.items() if self._rank(role) > ORDER.index(resident)}
        for roles, doing in ((frees, "free"), (wanted.keys() - frees, "restore")):
            pending = []
            for role in sorted(roles):
                if self._resident[role] != wanted[role]:
                    self._resident[role] = None  # until it is done
                    pending.append((role, self._groups[role].submit("hold", wanted[role])))
            for role, refs in pending:
                self._groups[role].wait(refs, f"{doing} GPU memory")
                self._resident[role] = wanted[role]

    def _rank(self, role: str) -> int:
        """Returns how much a role holds, as an index of `ORDER`; what is not known may be everything."""
        held = self._resident[role]
        return len(ORDER) if held is None else ORDER.index(held)
