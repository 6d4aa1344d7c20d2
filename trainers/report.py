"""python -m trainers.report runs/NAME [runs/NAME ...]: one HTML page about one run or several, finished or not.

About one run, it shows key metrics, the curve of every metric, the time of each phase, samples of text if the run has
any, and the settings. Several runs are compared: their metrics share charts, with a color per run, and tables show
their key metrics and the settings that differ. The page is self-contained, so it can be mailed or archived.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from configs.arguments import Parser
from configs.errors import ConfigError, one_line_errors
from configs.program import program
from storage.durable import DiskError
from storage.paths import require_dir, resolve
from trainers.reporting.comparison import render_comparison
from trainers.reporting.page import render
from trainers.reporting.record import read_record
from trainers.reporting.samples import read_samples
from trainers.runs.folder import write_atomically

PROG = program("trainers.report")


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the page and prints its path."""
    options = _parse(argv)
    with one_line_errors(PROG):
        print(f"report: {report(options.runs, options.out)}")


def report(runs: Sequence[str], out: str | None = None) -> Path:
    """Writes the report of one run, or the comparison of several, and returns its path.

    Args:
        runs: the runs' folders; a leading `runs/` stands for the root folder of runs.
        out: the file to write; default: report.html, or comparison.html of several runs, in the first run's folder.

    Raises:
        ConfigError: a run does not exist or is given twice, one of its lines cannot be read, no two of several runs
            share a metric, or the report cannot be written.
    """
    folders = [require_dir(run, "run", "give the folder of a run, such as runs/quickstart/ppo") for run in runs]
    records = [read_record(folder) for folder in folders]
    if len(records) == 1:
        name, html = "report.html", render(records[0], read_samples(folders[0]))
    else:
        name, html = "comparison.html", render_comparison(records)
    path = resolve(out) if out else folders[0] / name
    try:
        # A lone surrogate, which is valid in JSON but not in UTF-8, becomes text such as \ud83d.
        write_atomically(path, html.encode("utf-8", "backslashreplace").decode("utf-8"))
    except DiskError as error:
        raise ConfigError(f"{path}: cannot be written ({error.reason}); give another file with --out") from error
    return path


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="runs/NAME", help="a run's folder; several are compared")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="the HTML file to write (default: report.html, or comparison.html of several runs, in the first folder)",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
