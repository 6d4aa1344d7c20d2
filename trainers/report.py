"""python -m trainers.report runs/NAME: one HTML page about a run of any stage, finished or not.

It shows key metrics, the curve of every metric, the time of each phase, samples of text if the run has any, and the
settings. The page is self-contained, so it can be mailed or archived.
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
from trainers.reporting.page import render
from trainers.reporting.record import read_record
from trainers.reporting.samples import read_samples
from trainers.runs.folder import write_atomically

PROG = program("trainers.report")


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the page and prints its path."""
    options = _parse(argv)
    with one_line_errors(PROG):
        print(f"report: {report(options.run, options.out)}")


def report(run: str, out: str | None = None) -> Path:
    """Writes the report of a run, and returns its path.

    Args:
        run: the run's folder; a leading `runs/` stands for the root folder of runs.
        out: the file to write; default: report.html in the run's folder.

    Raises:
        ConfigError: the run does not exist, one of its lines cannot be read, or the report cannot be written.
    """
    folder = require_dir(run, "run", "give the folder of a run, such as runs/quickstart/ppo")
    path = resolve(out) if out else folder / "report.html"
    html = render(read_record(folder), read_samples(folder))
    try:
        # A lone surrogate, which is valid in JSON but not in UTF-8, becomes text such as \ud83d.
        write_atomically(path, html.encode("utf-8", "backslashreplace").decode("utf-8"))
    except DiskError as error:
        raise ConfigError(f"{path}: cannot be written ({error.reason}); give another file with --out") from error
    return path


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="runs/NAME", help="the run's folder")
    parser.add_argument("--out", metavar="FILE", help="the HTML file to write (default: runs/NAME/report.html)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
