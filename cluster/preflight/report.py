"""A plan and its findings as tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster.preflight.needs import Finding, Need, Plan, Row, gib

_PLAIN_WIDTH = 150  # columns, if the output is not a terminal
_COLORS = {"fits": "green", "tight": "yellow", "unknown": "yellow", "refused": "bold red"}


_GRAVITY = ("refused", "tight", "unknown", "fits")  # the worst finding of a stage is its verdict


def show_verdict(title: str, findings: Sequence[Finding]) -> None:
    """Prints one line: the worst level of the findings, and the first finding of that level unless everything fits."""
    worst = min((finding.level for finding in findings), key=_GRAVITY.index, default="fits")
    first = next((finding for finding in findings if finding.level == worst), None)
    text = Text.assemble((title, "bold"), ": ", (worst, _COLORS[worst]))
    if first and worst != "fits":
        count = len({finding for finding in findings if finding.level == worst}) - 1
        text.append(f": {first.subject}: {first.text}" + f" (and {count} more)" * bool(count))
    Console(highlight=False).print(text, soft_wrap=True)


def show(plan: Plan | None, findings: Sequence[Finding]) -> None:
    """Prints the memory of each role's ranks, part by part, and the findings.

    Args:
        plan: the plan whose memory is printed; None prints only the findings.
        findings: results of the checks; duplicates are printed once.
    """
    console = Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH, highlight=False)
    for group, places in plan.groups.items() if plan else ():
        if plan and len(plan.groups) > 1:
            console.print(Text(f"  {group}"))
        console.print(memory([need for place in places for need in place.needs]))
    table = _table("", "", "")
    for finding in dict.fromkeys(findings):
        table.add_row(Text(finding.level, style=_COLORS[finding.level]), finding.subject, Text(finding.text))
    console.print(table)
    console.print()


def memory(needs: Sequence[Need]) -> Table:
    """Returns a table with one row per part of memory: role, device, part, bytes, and how they are computed."""
    table = _table("role", "of each rank", "part", "takes", "computed as")
    table.columns[3].justify = "right"
    for need in needs:
        name = f"{need.role} x {need.ranks}"
        for device, total, rows in _devices(need):
            moment = "" if need.gpu and device == "host" else need.moment
            table.add_row(name, device, "all", gib(total), moment, style="bold")
            for part, size, why in rows:
                table.add_row("", "", part, gib(size), Text(why))
            name = ""
        for part, size, why in need.first:
            table.add_row("", "rank 0's host", part, gib(size), Text(why))
    return table


def _devices(need: Need) -> Iterator[tuple[str, int, Sequence[Row]]]:
    if need.gpu:
        yield "GPU", need.gpu_bytes, need.gpu
    yield "host", need.host_bytes, need.host


def _table(*columns: str) -> Table:
    table = Table(box=None, show_header=any(columns), header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column)
    return table
