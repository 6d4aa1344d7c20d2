"""python -m trainers.quickstart: the whole pipeline on the sample clinic, from random weights to PPO, and its results.

Runs the commands of the stages one after another, evaluates the model after each stage, and writes an HTML page with
all results. Finished parts are skipped, so repeating the command continues where it stopped, or only prints the table.
Results are in runs/quickstart/.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from configs.arguments import Parser
from configs.base import read
from configs.errors import ConfigError, one_line_errors
from configs.logs import configure
from configs.program import program
from evals.report.table import build_table, check_table, to_markdown
from storage.durable import replace_file, write_json
from storage.paths import runs_root
from trainers.config.stages import STAGES as CONFIGS
from trainers.quickstart.page import to_html
from trainers.quickstart.parts import Ledger
from trainers.quickstart.results import EVALUATIONS, read_results
from trainers.quickstart.show import PURPOSES, before_and_after

PROG = program("trainers.quickstart")
FOLDER = "runs/quickstart"

NEXT = """\
Next, for example:
  .venv/bin/chimed serve model={folder}/ppo/model    chat with the model in a browser
  .venv/bin/chimed report {folder}/ppo               the curves and samples of a stage, as an HTML page
  .venv/bin/chimed ppo --config {config}   PPO by itself, on the models above; --help lists its settings"""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the parts that are not finished, then prints the table."""
    options = _parse(argv)
    root = runs_root() / "quickstart"
    configure("trainers.quickstart")
    with one_line_errors(PROG):
        read("ppo", CONFIGS, ["--config", options.config])  # checks every stage of the recipe before the first starts
        _require_same_options(root, options)
        if not (root / "table.json").exists():
            _run_all(options, root)
        table = json.loads((root / "table.json").read_text())
        check_table(table)
    page = root / "report.html"
    print(f"\n{(root / 'table.md').read_text()}\nThe page with curves and answers: {page}\n")
    print(NEXT.format(config=options.config, folder=FOLDER))


def _run_all(options: argparse.Namespace, root: Path) -> None:
    """Runs data preparation, stages, and evaluations; prints each one's results, and writes the table and the page."""
    ledger = Ledger(root / "ledger.json")
    _announce("clinic", "data.clinic")
    clinic = ("--out", f"{root}/clinic", f"--seed={options.seed}", f"--chat={options.chat}")
    ledger.run("clinic", "data.clinic", *clinic)
    for stage, evaluation in EVALUATIONS.items():
        _announce(stage, f"trainers.{stage}")
        name = f"--name=quickstart/{stage}"
        ledger.run(stage, f"trainers.{stage}", "--config", options.config, f"--seed={options.seed}", name)
        if not evaluation.path(root).exists():
            ledger.run("evals", "evals.run", *evaluation.arguments(root, options.seed), quiet=True)
        print(before_and_after(stage, read_results(root)), flush=True)
    models = read_results(root)
    table = build_table(models, ledger.seconds, ledger.peak_bytes)
    replace_file(root / "report.html", to_html(root, table, models).encode())
    replace_file(root / "table.md", to_markdown(table).encode())
    write_json(table, root / "table.json")


def _announce(part: str, module: str) -> None:
    console = Console(highlight=False)
    console.rule(f"[bold]{part}[/]  python -m {module}", align="left")
    console.print(PURPOSES[part])


def _require_same_options(root: Path, options: argparse.Namespace) -> None:
    """Raises ConfigError if the folder was created with another seed, recipe, or chat format."""
    wanted = {"seed": options.seed, "config": options.config, "chat": options.chat}
    path = root / "options.json"
    if not path.exists():
        write_json(wanted, path)
    found = {"chat": "chimed", **json.loads(path.read_text())}
    for name, value in wanted.items():
        if found[name] != value:
            raise ConfigError(
                f"{root} was created with --{name} {found[name]}, not {value}; remove it, or set CHIMED_RUNS to "
                "another folder for runs"
            )


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/laptop.yaml", help="the recipe (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of data, initial weights, order, and sampling (default: 0)"
    )
    parser.add_argument(
        "--chat",
        choices=("chimed", "chatml"),
        default="chimed",
        help="the tokenizer's chat format (default: %(default)s)",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
