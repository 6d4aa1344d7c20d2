"""python -m cluster.status: shows the runs on a Ray cluster, their progress, and whether all their processes are alive.

    python -m cluster.status                      the cluster of RAY_ADDRESS, else the one on this machine
    python -m cluster.status --watch              repeat every two seconds, until Ctrl-C
    python -m cluster.status --json               the same for programs

It queries only the cluster's head (see cluster/head.py and cluster/liveness/registry.py), so it works from any machine
that can reach the head's port, even while a driver hangs. Exit status: 0, or 2 if no cluster is found.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cluster.head import Head, HeadError
from cluster.join import require_ray_at
from cluster.ray_internals import find_gcs_addresses
from cluster.status.view import ClusterView, NodeView, RankView, RunView, snapshot
from configs.arguments import Parser
from configs.errors import ConfigError, one_line_errors
from configs.program import program

PROG = program("cluster.status")
_PLAIN_WIDTH = 140  # columns, if the output is not a terminal
_GIB = 2**30
_NONE_HERE = "no Ray cluster runs on this machine"


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the state once, or repeatedly with --watch."""
    options = _parse(argv)
    with one_line_errors(PROG), Head(find(options.address)) as head:
        if options.watch is None:
            _print(snapshot(head), options.json)
        else:
            watch(head, options.watch, options.json)


def find(address: str | None) -> str:
    """Returns HOST:PORT of the cluster at `address`, else at RAY_ADDRESS, else of the only one on this machine.

    Raises:
        ConfigError: there is no such cluster, or several run on this machine; raised within seconds.
    """
    given, setting = address or os.environ.get("RAY_ADDRESS", ""), "--address " if address else "RAY_ADDRESS="
    if given in ("", "auto", "local"):
        running = sorted(find_gcs_addresses())
        if len(running) != 1:
            found = f"several Ray clusters run on this machine ({', '.join(running)})" if running else _NONE_HERE
            raise ConfigError(f"{found}; name one with --address HOST:PORT")
        given, setting = running[0], ""
    require_ray_at(given, setting, "or name another one with --address HOST:PORT")
    return given


def watch(head: Head, seconds: float, as_json: bool) -> None:
    """Shows the state every `seconds` until interrupted. If the head does not respond, shows the error and retries."""
    screen = Live(screen=True, auto_refresh=False) if sys.stdout.isatty() and not as_json else None
    with suppress(KeyboardInterrupt), screen or nullcontext():
        while True:
            try:
                view = snapshot(head)
            except HeadError as error:
                if screen:
                    _show(screen, Text(str(error), style="bold red"))
                else:
                    print(f"{PROG}: {error}", file=sys.stderr, flush=True)
            else:
                if screen:
                    _show(screen, render(view))
                else:
                    _print(view, as_json)
            time.sleep(seconds)


def render(view: ClusterView) -> RenderableType:
    """Returns the state as tables."""
    parts: list[RenderableType] = []
    for run in view.runs:
        parts += [_headline(run), *([_ranks(run)] if run.ranks else [])]
    if not view.runs:
        parts.append(Text(f"no runs on the cluster at {view.address}"))
    parts += [Text(f"{group.why} ({_ago(group.asked_s)})", style="yellow") for group in view.waiting]
    if view.coming:
        kinds = ", ".join(f"{count} {kind}" for kind, count in view.coming.items())
        parts.append(Text(f"the autoscaler is adding: {kinds}", style="yellow"))
    parts.append(_nodes(view.nodes))
    return Group(*parts)


def _headline(run: RunView) -> Text:
    line = Text.assemble((run.name, "bold"), f"  {run.stage}  ", (run.state, "" if run.state == "running" else "red"))
    line.append(f"  step {run.step}" + (f" of {run.steps}" if run.steps else "") + f", {_ago(run.step_s)} ago")
    figures = (("tokens/s", run.tokens_per_second), ("reward", run.reward), ("KL", run.kl_to_reference))
    for name, value in (*figures, ("loss", run.loss), ("weights", run.weights_version)):
        if value is not None:
            line.append(f"  {name} {value:.4g}" if isinstance(value, float) else f"  {name} {value}")
    return line


def _ranks(run: RunView) -> Table:
    table = _table("role", "rank", "state", "node", "bundle", "pid", "restarts", "memory", "heartbeat", "weights")
    for rank in run.ranks:
        table.add_row(
            rank.role,
            str(rank.rank),
            Text(rank.state, style="green" if rank.state == "alive" else "bold red" if _is_bad(rank) else "yellow"),
            rank.node,
            rank.bundle or "-",
            _or_dash(rank.pid),
            str(rank.restarts),
            "-" if rank.resident_bytes is None else f"{rank.resident_bytes / _GIB:.2f} GiB",
            "-" if rank.beat_s is None else f"{_ago(rank.beat_s)} ago",
            _or_dash(rank.weights_version),
        )
    return table


def _nodes(nodes: Sequence[NodeView]) -> Table:
    table = _table("node", "kind", "state", "used of what it has")
    for node in nodes:
        amounts = [_amount(name, node.used[name], total) for name, total in node.total.items()]
        table.add_row(node.node, node.kind or "-", node.state, ", ".join(amounts) or "nothing")
    return table


def _amount(name: str, used: float, total: float) -> str:
    if name in ("memory", "object_store_memory"):
        return f"{used / _GIB:.1f}/{total / _GIB:.1f} GiB {name.replace('_', ' ')}"
    return f"{used:g}/{total:g} {name}"


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=column in ("role", "state", "pid", "memory", "heartbeat"))
    return table


def _is_bad(rank: RankView) -> bool:
    return rank.state in ("dead", "gone", "late")


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)


def _ago(seconds: float) -> str:
    """Formats a duration: `7 s`, `3 min`, `2.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _show(screen: Live, content: RenderableType) -> None:
    screen.update(Group(Text(time.strftime("%H:%M:%S"), style="dim"), content), refresh=True)


def _print(view: ClusterView, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_finite(asdict(view)), ensure_ascii=False), flush=True)
        return
    Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH, highlight=False).print(render(view))


def _finite(value: Any) -> Any:
    """Replaces NaN and infinities, which JSON does not have, with None."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", help="HOST:PORT of the cluster's head (default: RAY_ADDRESS, else this machine's)")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.add_argument(
        "--watch", nargs="?", const=2.0, type=_positive, metavar="SECONDS", help="repeat every SECONDS (default: 2)"
    )
    return parser.parse_args(argv)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of seconds")
    return value


if __name__ == "__main__":
    main()
