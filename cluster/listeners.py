"""python -m cluster.listeners: lists the listening TCP ports of this machine's Ray processes and their children.

    python -m cluster.listeners            address, port, process, and who can reach it
    python -m cluster.listeners --json     the same for programs

Ports of other users' processes are not shown. Exit status: 0, or 1 if a port is open beyond loopback.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict

from cluster.exposure import is_loopback
from cluster.sockets import Listener, children, command_line, listeners
from configs.arguments import Parser
from configs.errors import one_line_errors
from configs.program import program

PROG = program("cluster.listeners")
_RAY = re.compile(
    r"(^ray::|/gcs_server |/raylet/raylet |/ray/dashboard/|/ray/autoscaler/|-m ray\.util\.client\.server)"
)
_WIDTH = 60  # characters of a process's name


def main(argv: Sequence[str] | None = None) -> None:
    """Prints one line per listening port, and exits with status 1 if a port is open beyond loopback."""
    parser = Parser(prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    options = parser.parse_args(argv)
    with one_line_errors(PROG):
        found = listeners(ray_processes())
        for each in found:
            name = _name(each)
            if options.json:
                print(json.dumps({**asdict(each), "process": name, "open": is_open(each)}))
            else:
                reach = "OPEN to other machines" if is_open(each) else "this machine only"
                print(f"{each.address:>15} {each.port:>6} {each.pid:>8}  {reach:<22}  {name}")
        if not found:
            print(f"{PROG}: no Ray process of this user listens on this machine", file=sys.stderr)
    raise SystemExit(any(map(is_open, found)))


def ray_processes() -> set[int]:
    """Returns the ids of the Ray processes on this machine and of all their descendants."""
    family = children()
    everyone = {pid for group in family.values() for pid in group}
    found: set[int] = set()
    pending = [pid for pid in everyone if _RAY.search(command_line(pid))]
    while pending:
        pid = pending.pop()
        if pid not in found:
            found.add(pid)
            pending += family.get(pid, [])
    return found


def is_open(listener: Listener) -> bool:
    """Returns whether other machines can reach this port, unless a firewall or NetworkPolicy blocks it."""
    return not is_loopback(listener.address)


def _name(listener: Listener) -> str:
    """Returns a short name of the process: `ray::ServeReplica:…`, or the program's path, relative to site-packages."""
    line = command_line(listener.pid) if listener.pid is not None else ""
    if line.startswith("ray::"):
        return line[:_WIDTH]
    words = [word for word in line.split() if not word.startswith("-")]
    programs = [word.rpartition("/site-packages/")[2] for word in words]
    named = [word for word in programs if not re.search(r"(^|/)python[\d.]*$", word)]
    return (named[0] if named else line)[:_WIDTH]


if __name__ == "__main__":
    main()
