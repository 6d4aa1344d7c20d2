"""python -m trainers.quickstart: the whole pipeline on the sample clinic, from random weights to PPO, and its results.

Runs the commands of the stages one after another. Finished stages are skipped, so repeating the command continues where
it stopped, or only prints the table. Results are in runs/quickstart/.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from rich.console import Console

from cluster.memory import PeakMemory
from configs.arguments import Parser
from configs.base import read
from configs.errors import ConfigError, one_line_errors
from configs.logs import configure
from configs.program import program
from evals.report.table import build_table, check_table, to_markdown
from evals.run import write_json
from storage.paths import runs_root
from trainers.config.stages import STAGES as CONFIGS
from trainers.runs.stopping import Stopped

logger = logging.getLogger(__name__)

PROG = program("trainers.quickstart")
STAGES = ("pretrain", "sft", "reward", "ppo")
FOLDER = "runs/quickstart"
RESULTS = "evals.json"

NEXT = """\
Next, for example:
  .venv/bin/python -m trainers.ppo --config {config}            PPO by itself, on the models above
  .venv/bin/python -m trainers.ppo --help                       every setting with its default
  .venv/bin/python -m evals.run --model {folder}/ppo/model      evaluate one model
  .venv/bin/tensorboard --logdir {folder}                       the curves"""


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
    print(f"\n{(root / 'table.md').read_text()}\nSaved as {root / 'table.json'} and table.md.\n")
    print(NEXT.format(config=options.config, folder=FOLDER))


def _run_all(options: argparse.Namespace, root: Path) -> None:
    """Runs data preparation, stages, and evaluation.

    Saves the time and memory of every part when it ends, so that a rerun adds to them.
    """
    ledger = _Ledger(root / "ledger.json")
    clinic = ("--out", f"{root}/clinic", f"--seed={options.seed}", f"--chat={options.chat}")
    ledger.run("clinic", "data.clinic", *clinic)
    for stage in STAGES:
        name = f"--name=quickstart/{stage}"
        ledger.run(stage, f"trainers.{stage}", "--config", options.config, f"--seed={options.seed}", name)
    folders = {"random": root / "pretrain/random", **{stage: root / stage / "model" for stage in STAGES}}
    models = [argument for stage, folder in folders.items() for argument in ("--model", f"{stage}={folder}")]
    ledger.run(
        "evals",
        "evals.run",
        *models,
        *("--data", f"{root}/clinic", "--seed", str(options.seed)),
        *("--reward-model", str(folders["reward"]), "--reference", str(folders["sft"])),
        *("--json", f"{root / RESULTS}"),
    )
    results = json.loads((root / RESULTS).read_text())
    table = build_table(results["models"], ledger.seconds, ledger.peak_bytes)
    (root / "table.md").write_text(to_markdown(table), encoding="utf-8")
    write_json(table, root / "table.json")


class _Ledger:
    """Runs the parts of the quickstart; records each one's time in seconds and the peak memory, across restarts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.seconds: dict[str, float] = {}
        self.peak_bytes = 0
        if path.exists():
            kept = json.loads(path.read_text())
            self.seconds, self.peak_bytes = kept["seconds"], kept["peak_bytes"]

    def run(self, part: str, module: str, *arguments: str) -> None:
        """Runs `python -m module arguments`. Raises ConfigError if it fails; the command has printed the reason."""
        Console(highlight=False).rule(f"[bold]{part}[/]  python -m {module}", align="left")
        start = time.monotonic()
        environment = {**os.environ, "PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS", "ignore")}
        with PeakMemory() as memory:
            status = _status_of([sys.executable, "-m", module, *arguments], environment)
        self.seconds[part] = round(self.seconds.get(part, 0.0) + time.monotonic() - start, 1)
        self.peak_bytes = max(self.peak_bytes, memory.peak_bytes)
        write_json({"seconds": self.seconds, "peak_bytes": self.peak_bytes}, self._path)
        if status:
            raise ConfigError(
                f"{part} failed with status {status}, see the output above; fix the cause and run the same "
                "command again"
            )


def _status_of(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs a command and returns its exit status.

    Forwards SIGTERM and Ctrl-C of this process to the command, and raises Stopped when the command has ended.
    """
    asked: list[int] = []
    # In a separate process group, so that a signal of the terminal reaches the command once, through this process.
    with subprocess.Popen(command, env=environment, process_group=0) as process:

        def stop(number: int, _: FrameType | None) -> None:
            asked.append(number)
            process.send_signal(number)

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            status = process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if asked:
        logger.info("stopped; run the same command to continue")
        raise Stopped(signal.Signals(asked[0]).name)
    return status


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
