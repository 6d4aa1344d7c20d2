"""python -m trainers.journal show runs/NAME [--step N] [--best K | --worst K]: prints a step of the journal as text."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from actors.modeling.rows import lengths
from configs.arguments import Parser, count
from configs.base import read
from configs.errors import ConfigError, one_line_errors
from configs.logs import configure
from configs.program import program
from configs.recipe import read_recipe
from data.chat import chat_ends, without_end
from data.tables import column_values
from storage.checksummed import read_checksummed
from storage.paths import require_dir
from trainers.config.rlhf import PPOConfig
from trainers.config.stages import STAGES
from trainers.rlhf.journal import recorded_steps, step_path
from trainers.runs.export import load_tokenizer

PROG = program("trainers.journal")


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the requested step."""
    options = _parse(argv)
    configure("trainers.journal")
    with one_line_errors(PROG):
        show(options)


def show(options: argparse.Namespace) -> None:
    """Prints the requested step.

    Raises:
        ConfigError: the run has no journal, or its journal lacks the step.
        RunError: a file of the step is damaged.
    """
    run = require_dir(options.run, "run", "give the folder of a run, such as runs/quickstart/ppo")
    steps = recorded_steps(run / "journal")
    if not steps:
        raise ConfigError(f"{run}: has no journal; give a run of trainers.ppo or trainers.rejection that has started")
    step = steps[-1] if options.step is None else options.step
    if step not in steps:
        raise ConfigError(f"--step={step}: the journal of {run} has steps {steps[0]} to {steps[-1]}; give one of them")
    table, facts = read_checksummed(step_path(run / "journal", step))
    table = with_rewards(table, step_path(run / "rewards", step))
    rows = chosen(table, options.best, options.worst)
    print(f"step {step}, weights version {facts['weights_version']}, {len(table)} responses{_summary(table)}")
    tokenizer = load_tokenizer(_model(run))
    ends = chat_ends(tokenizer)
    for row in table.take(rows).to_pylist():
        print("\n" + as_text(row, tokenizer, ends))


def with_rewards(table: pa.Table, path: Path) -> pa.Table:
    """Returns `table` with the columns of the rewards file `path` added.

    Returns `table` unchanged if it has rewards already, or if the file does not exist because the step has not been
    scored.

    Raises:
        ConfigError: the file has a different number of rows.
    """
    if "reward" in table.column_names or not path.exists():
        return table
    rewards, _ = read_checksummed(path)
    if len(rewards) != len(table):
        raise ConfigError(
            f"{path}: has {len(rewards)} rewards for {len(table)} responses; remove the file to show the "
            "step without rewards"
        )
    for name in rewards.column_names:
        table = table.append_column(name, rewards.column(name))
    return table


def chosen(table: pa.Table, best: int | None, worst: int | None) -> list[int]:
    """Returns the indices of the rows to print.

    These are the `best` rows with the highest rewards, in descending order; the `worst` rows with the lowest rewards,
    in ascending order; or all rows, in the table's order.

    Raises:
        ConfigError: rows are selected by reward, but the step has not been scored.
    """
    if best is None and worst is None:
        return list(range(len(table)))
    if "reward" not in table.column_names:
        raise ConfigError("--best, --worst: this step has no rewards yet; remove the option, or give an earlier --step")
    rewards = column_values(table, "reward")
    order = sorted(range(len(rewards)), key=lambda row: -rewards[row] if best is not None else rewards[row])
    return order[: best if best is not None else worst]


def as_text(row: dict[str, Any], tokenizer: Any, ends: Sequence[int]) -> str:
    """Formats a line with reward and length, followed by prompt and response, decoded without special tokens."""
    parts = {name.removeprefix("reward_"): row[name] for name in row if name.startswith("reward_")}
    reward = f"reward {row['reward']:.4f}" if "reward" in row else "not scored"
    sources = "".join(f" {name} {value:.4f}" for name, value in parts.items()) if len(parts) > 1 else ""
    end = "finished" if row["finished"] else "truncated"
    parts_of_chat = (row["prompt"], without_end(row["response"], ends))
    prompt, response = (tokenizer.decode(ids, skip_special_tokens=True) for ids in parts_of_chat)
    head = (
        f"-- prompt {row['prompt_id']}, sample {row['sample']}: {reward}{sources}, {len(row['response'])} tokens, {end}"
    )
    return f"{head}\n{prompt.strip()}\n{response.strip()}"


def _summary(table: pa.Table) -> str:
    tokens = f", {lengths(table, 'response').mean():.1f} tokens each"
    if "reward" not in table.column_names:
        return f"{tokens}, not scored"
    rewards = table.column("reward").to_numpy()
    return f"{tokens}, reward {rewards.mean():.4f} (from {rewards.min():.4f} to {rewards.max():.4f})"


def _model(run: Path) -> str | Path:
    """Returns a folder or model name with the run's tokenizer: the exported model, else the starting model."""
    if (run / "model").is_dir():
        return run / "model"
    path = run / "config.yaml"
    stages = read_recipe(path, str(path)).values
    config: Any = read(next((stage for stage in stages if stage in STAGES), "ppo"), STAGES, ["--config", str(path)])
    return str(config.policy.model if isinstance(config, PPOConfig) else config.model)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog=PROG, description="Show the contents of a run's journal.")
    show = parser.add_subparsers(required=True, dest="command").add_parser(
        "show", help="print prompts, responses, and rewards of a step"
    )
    show.add_argument("run", metavar="runs/NAME", help="the run's folder")
    show.add_argument("--step", type=int, help="the step, counted from 0 (default: the newest)")
    which = show.add_mutually_exclusive_group()
    which.add_argument("--best", type=count, metavar="K", help="only the K responses with the highest rewards")
    which.add_argument("--worst", type=count, metavar="K", help="only the K responses with the lowest rewards")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
