"""The command line of `evals.run`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import get_args

from actors.precision import AUTO, Dtype
from configs.arguments import count
from configs.errors import ConfigError
from evals.models.sizing import DEFAULT_CONTEXT
from evals.models.subject import RESPONSE_TOKENS, Method
from evals.tasks.benchmarks import BENCHMARKS
from evals.tasks.registry import TASKS

PROG = "python -m evals.run"
DEFAULT_DATA = "runs/quickstart/clinic"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line. As usual with argparse, `--help` and invalid options exit the program."""
    parser = argparse.ArgumentParser(prog=PROG, description="Evaluate models on held-out data.", allow_abbrev=False)
    _add_models(parser)
    _add_data(parser)
    _add_protocol(parser)
    parser.add_argument("--json", metavar="FILE", help="also write the results there")
    parser.add_argument("--markdown", metavar="FILE", help="also write a report there, beside the published rows")
    parser.add_argument("--html", metavar="FILE", help="also write that report there as a page with plots")
    return parser.parse_args(arguments)


def _add_models(parser: argparse.ArgumentParser) -> None:
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument(
        "--model", action="append", metavar="[NAME=]DIR",
        help="model folder in Hugging Face format or Hub id; several, each with a name, share one engine",
    )  # fmt: skip
    who.add_argument("--endpoint", metavar="URL", help="an OpenAI-compatible endpoint, its URL up to /v1")
    parser.add_argument(
        "--endpoint-model", metavar="NAME", help="which of the endpoint's models (default: the only one)"
    )
    parser.add_argument("--reward-model", metavar="DIR", help="what reward and preference score answers with")
    parser.add_argument("--reference", metavar="DIR", help="the model that the kl task measures from, e.g. SFT")
    parser.add_argument("--against", metavar="DIR", help="the model whose answers preference compares with")


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tasks", metavar="A,B,...",
        help=f"some of {', '.join([*TASKS, *BENCHMARKS])} (default: the sample clinic's that the options allow, and those "
        "of --file)",
    )  # fmt: skip
    parser.add_argument(
        "--data", default=DEFAULT_DATA, metavar="DIR",
        help="held-out tables, and the files of benchmarks under their usual names (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--file", action="append", default=[], metavar="TASK=PATH", help="the file or folder of a benchmark; repeatable"
    )
    parser.add_argument("--limit", type=count, metavar="N", help="use at most N rows of each table or file")
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="chooses rows and samples answers (default: 0)"
    )


def _add_protocol(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--response-tokens", type=count, default=RESPONSE_TOKENS, metavar="N",
        help="longest answer to an open question or a prompt; give what your references need (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--methods", type=methods, default=get_args(Method), metavar="A,B",
        help=f"how lettered options are chosen: {', '.join(get_args(Method))} (default: both)",
    )  # fmt: skip
    parser.add_argument(
        "--shots", type=shots, default=(0, 5), metavar="N,M", help="examples before a choice question (default: 0,5)"
    )
    parser.add_argument(
        "--max-model-len", type=count, metavar="N",
        help=f"context of the engine, in tokens (default: the model's, at most {DEFAULT_CONTEXT})",
    )  # fmt: skip
    parser.add_argument(
        "--dtype", choices=get_args(Dtype), default="auto",
        help=f"precision of the engine and the reward model; {AUTO} (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--no-rotation", action="store_true", help="ask choice questions in the given order only")
    parser.add_argument("--last-turn", action="store_true", help="score conversations at their last answer only")


def named(text: str) -> re.Match[str] | None:
    """Matches NAME=PATH. A NAME has only letters, digits, `_`, `.` and `-`; other text is a path that contains `=`."""
    return re.fullmatch(r"([A-Za-z0-9_.-]+)=(.+)", text)


def files_of(given: Sequence[str]) -> dict[str, str]:
    """Returns the paths of `--file` by benchmark.

    Raises:
        ConfigError: a path has no name or the name of an unknown benchmark, or a benchmark is given twice.
    """
    files: dict[str, str] = {}
    for text in given:
        match = named(text)
        if not match or match[1] not in BENCHMARKS:
            raise ConfigError(f"--file {text}: write --file TASK=PATH, TASK being one of {', '.join(BENCHMARKS)}")
        if match[1] in files:
            raise ConfigError(f"--file {text}: {match[1]} has a file already; run it a second time for another")
        files[match[1]] = match[2]
    return files


def seed(text: str) -> int:
    """Parses an integer of at least 0. Raises ArgumentTypeError for a negative number."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, found {number}")
    return number


def methods(text: str) -> tuple[str, ...]:
    """Parses method names, separated by commas. Raises ArgumentTypeError for an unknown or repeated name."""
    given = tuple(text.split(","))
    if not set(given) <= set(get_args(Method)) or len(set(given)) < len(given):
        raise argparse.ArgumentTypeError(f"must be some of {', '.join(get_args(Method))}, found {text}")
    return given


def shots(text: str) -> tuple[int, ...]:
    """Parses numbers of few-shot examples, separated by commas. Raises ArgumentTypeError for a repeated number."""
    given = tuple(seed(number) for number in text.split(","))
    if len(set(given)) < len(given):
        raise argparse.ArgumentTypeError(f"must be different numbers, found {text}")
    return given
