"""python -m trainers.list_runs [TEXT]: the runs below runs/, newest last, with state, step, and key metrics.

With TEXT, only runs whose name contains it. A run is `running` if a driver on this machine has opened it, and otherwise
`finished` or `stopped`; the same command continues a stopped run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from configs.arguments import Parser
from configs.errors import ConfigError, one_line_errors
from configs.program import program
from reporting.formats import format_time
from storage.paths import runs_root
from trainers.reporting.record import read_record
from trainers.runs.folder import in_use
from trainers.runs.panels import key_metrics

PROG = program("trainers.list_runs")
_METRICS = 2  # key metrics per run


@dataclass(frozen=True)
class Row:
    """A run as it is listed.

    Attributes:
        name: folder of the run below `runs_root()`.
        stage: the stage's name, e.g. `ppo`.
        state: `running`, `stopped`, `finished`, or why the run cannot be read.
        step: last step that was logged.
        steps: number of steps of the stage; None if unknown.
        updated: time of the last line of metrics, in Unix seconds; None if there is none.
        metrics: last values of the key metrics, by name.
    """

    name: str
    stage: str
    state: str
    step: int
    steps: int | None
    updated: float | None
    metrics: dict[str, float]


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a line per run."""
    parser = Parser(prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?", default="", help="part of the names of the runs to list")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    options = parser.parse_args(argv)
    with one_line_errors(PROG):
        rows = list_runs(runs_root(), options.text)
        if options.json:
            for row in rows:
                print(json.dumps(asdict(row)))
        elif rows:
            print(table(rows))
        else:
            print(
                f"{PROG}: no run in {runs_root()}" + (f" with {options.text} in its name" * bool(options.text)),
                file=sys.stderr,
            )


def list_runs(root: Path, text: str = "") -> list[Row]:
    """Returns the runs below `root` whose names contain `text`, ordered by the time of their last metrics."""
    names = [str(path.parent.relative_to(root)) for path in root.rglob("config.yaml")]
    rows = [_row(root / name, name) for name in sorted(names) if text in name]
    return sorted(rows, key=lambda row: row.updated or 0.0)


def table(rows: Sequence[Row]) -> str:
    """Returns the rows as aligned text, with a header."""
    lines = [("run", "stage", "state", "step", "last metrics", "key metrics")]
    for row in rows:
        metrics = "  ".join(f"{name} {value:.4g}" for name, value in row.metrics.items())
        steps = f"{row.step}/{row.steps}" if row.steps else str(row.step)
        updated = "" if row.updated is None else format_time(row.updated)
        lines.append((row.name, row.stage, row.state, steps, updated, metrics))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _row(folder: Path, name: str) -> Row:
    try:
        record = read_record(folder)
    except ConfigError as error:
        return Row(name, "", f"unreadable: {error}", 0, None, None, {})
    state = "running" if in_use(folder) else "finished" if record.finished else "stopped"
    step = record.steps[-1] if record.steps else 0
    metrics = dict(islice(key_metrics(record.series).items(), _METRICS))
    return Row(name, record.stage, state, step, record.planned, record.ended, metrics)


if __name__ == "__main__":
    main()
