"""python -m trainers.report runs/NAME [runs/NAME ...]: one HTML page about one run or several, finished or not.

About one run, it shows key metrics, the curve of every metric, the time of each phase, samples of text if the run has
any, and the settings. Several runs are compared: their metrics share charts, with a color per run, and tables show
their key metrics and the settings that differ. The page is self-contained, so it can be mailed or archived.

With --follow, the page is written again and again while a run goes on, and a browser that shows it stays up to date.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from configs.arguments import Parser
from configs.errors import ConfigError, one_line_errors
from configs.program import program
from storage.durable import DiskError
from storage.paths import require_dir, resolve
from trainers.reporting.comparison import render_comparison
from trainers.reporting.page import render
from trainers.reporting.record import Record, read_record
from trainers.reporting.samples import read_samples
from trainers.runs.folder import write_atomically
from trainers.runs.stopping import INTERRUPTED

PROG = program("trainers.report")
FOLLOW_S = 10


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the page and prints its path."""
    options = _parse(argv)
    with one_line_errors(PROG):
        if options.follow:
            follow(options.runs, options.out)
        else:
            print(f"report: {report(options.runs, options.out)}")


def follow(runs: Sequence[str], out: str | None = None, wait: Callable[[float], None] = time.sleep) -> None:
    """Writes the report every `FOLLOW_S` seconds until no run is running anymore, or until Ctrl-C.

    Args:
        runs, out: see `report`.
        wait: waits for a number of seconds.

    Raises:
        ConfigError: see `report`.
    """
    path = report(runs, out, FOLLOW_S)
    print(f"report: {path}, written every {FOLLOW_S} s until the run ends; Ctrl-C to end it before", flush=True)
    try:
        while any(state in ("running", "no step yet") for state in states(runs)):
            wait(FOLLOW_S)
            report(runs, out, FOLLOW_S)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    finally:
        report(runs, out)  # a page that a browser does not load again
    print(f"report: {', '.join(states(runs))}")


def states(runs: Sequence[str]) -> list[str]:
    """Returns the state of each run; see `Record.state`. Raises ConfigError as `report` does."""
    return [record.state() for record in _records(runs)]


def report(runs: Sequence[str], out: str | None = None, refresh_s: int = 0) -> Path:
    """Writes the report of one run, or the comparison of several, and returns its path.

    Args:
        runs: the runs' folders; a leading `runs/` stands for the root folder of runs.
        out: the file to write; default: report.html, or comparison.html of several runs, in the first run's folder.
        refresh_s: seconds after which a browser loads the page again; 0 for never.

    Raises:
        ConfigError: a run does not exist or is given twice, one of its lines cannot be read, no two of several runs
            share a metric, or the report cannot be written.
    """
    records = _records(runs)
    first = records[0].folder
    if len(records) == 1:
        name, html = "report.html", render(records[0], read_samples(first), refresh_s=refresh_s)
    else:
        name, html = "comparison.html", render_comparison(records, refresh_s=refresh_s)
    path = resolve(out) if out else first / name
    try:
        # A lone surrogate, which is valid in JSON but not in UTF-8, becomes text such as \ud83d.
        write_atomically(path, html.encode("utf-8", "backslashreplace").decode("utf-8"))
    except DiskError as error:
        raise ConfigError(f"{path}: cannot be written ({error.reason}); give another file with --out") from error
    return path


def _records(runs: Sequence[str]) -> list[Record]:
    folders = [require_dir(run, "run", "give the folder of a run, such as runs/quickstart/ppo") for run in runs]
    return [read_record(folder) for folder in folders]


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="runs/NAME", help="a run's folder; several are compared")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="the HTML file to write (default: report.html, or comparison.html of several runs, in the first folder)",
    )
    parser.add_argument(
        "--follow",
        action="store_true",
        help=f"write the page every {FOLLOW_S} seconds until the run ends; a browser that shows it loads it again",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
