"""The command line of `evals.run`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import get_args

from actors.precision import AUTO, Dtype
from configs.arguments import Parser, count
from configs.errors import ConfigError
from configs.program import program
from evals.models.sizing import DEFAULT_CONTEXT
from evals.models.subject import RESPONSE_TOKENS, Method
from evals.tasks.benchmarks import BENCHMARKS
from evals.tasks.registry import TASKS

PROG = program("evals.run")
DEFAULT_DATA = "runs/quickstart/clinic"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line; as usual with argparse, `--help` and invalid options exit the program."""
    parser = Parser(prog=PROG, description="Evaluate models on held-out data.", allow_abbrev=False)
    _add_models(parser)
    _add_data(parser)
    _add_protocol(parser)
    parser.add_argument("--json", metavar="FILE", help="also write the results to this JSON file")
    parser.add_argument(
        "--markdown", metavar="FILE", help="also write a report with the published rows to this Markdown file"
    )
    parser.add_argument("--html", metavar="FILE", help="also write the report with plots to this HTML file")
    return parser.parse_args(arguments)


def _add_models(parser: Parser) -> None:
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument(
        "--model", action="append", metavar="[NAME=]DIR",
        help="model folder in Hugging Face format, or a Hub id; repeatable if each model has a name",
    )  # fmt: skip
    who.add_argument("--endpoint", metavar="URL", help="base URL of an OpenAI-compatible endpoint, up to /v1")
    parser.add_argument(
        "--endpoint-model", metavar="NAME", help="model of the endpoint to evaluate (default: its only one)"
    )
    parser.add_argument(
        "--reward-model", metavar="DIR", help="reward model that scores responses in the tasks reward and preference"
    )
    parser.add_argument("--reference", metavar="DIR", help="reference model of the kl task, e.g. the SFT model")
    parser.add_argument("--against", metavar="DIR", help="model that the preference task compares with")


def _add_data(parser: Parser) -> None:
    parser.add_argument(
        "--tasks", metavar="A,B,...",
        help=f"tasks to run, from {', '.join([*TASKS, *BENCHMARKS])} (default: the sample clinic's tasks that the other "
        "options allow, and the tasks of --file)",
    )  # fmt: skip
    parser.add_argument(
        "--data", default=DEFAULT_DATA, metavar="DIR",
        help="folder with held-out tables, and with benchmark files under their usual names (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--file", action="append", default=[], metavar="TASK=PATH", help="file or folder of a benchmark; repeatable"
    )
    parser.add_argument("--limit", type=count, metavar="N", help="use at most N rows of each table or file")
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="seed for choosing rows and sampling responses (default: 0)"
    )


def _add_protocol(parser: Parser) -> None:
    parser.add_argument(
        "--response-tokens", type=count, default=RESPONSE_TOKENS, metavar="N",
        help="maximum tokens of a response to an open question or a prompt; must fit your references (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--methods", type=methods, default=get_args(Method), metavar="A,B",
        help=f"methods by which the model chooses lettered options: {', '.join(get_args(Method))} (default: both)",
    )  # fmt: skip
    parser.add_argument(
        "--shots",
        type=shots,
        default=(0, 5),
        metavar="N,M",
        help="numbers of few-shot examples before a choice question (default: 0,5)",
    )
    parser.add_argument(
        "--max-model-len", type=count, metavar="N",
        help=f"context length of the engine, in tokens (default: the model's, at most {DEFAULT_CONTEXT})",
    )  # fmt: skip
    parser.add_argument(
        "--dtype", choices=get_args(Dtype), default="auto",
        help=f"precision of the engine and the reward model; {AUTO} (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--tensor-parallel-size", type=count, default=1, metavar="N",
        help="processes of the engine, each with a part of every weight matrix and, on GPUs, its own GPU (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--no-rotation", action="store_true", help="keep the options of choice questions in the given order"
    )
    parser.add_argument("--last-turn", action="store_true", help="score conversations only at their last response")


def named(text: str) -> re.Match[str] | None:
    """Matches NAME=PATH; returns None for text without a NAME, such as a path that contains `=`.

    A NAME has only letters, digits, `_`, `.`, and `-`.
    """
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
            raise ConfigError(
                f"--file {text}: {match[1]} already has a file; evaluate the other file in a separate run"
            )
        files[match[1]] = match[2]
    return files


def seed(text: str) -> int:
    """Parses an integer of at least 0.

    Raises:
        ArgumentTypeError: the number is negative.
    """
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, found {number}")
    return number


def methods(text: str) -> tuple[str, ...]:
    """Parses method names, separated by commas.

    Raises:
        ArgumentTypeError: a name is unknown or repeated.
    """
    given = tuple(text.split(","))
    if not set(given) <= set(get_args(Method)) or len(set(given)) < len(given):
        raise argparse.ArgumentTypeError(f"must be some of {', '.join(get_args(Method))}, found {text}")
    return given


def shots(text: str) -> tuple[int, ...]:
    """Parses numbers of few-shot examples, separated by commas.

    Raises:
        ArgumentTypeError: a number is negative or repeated.
    """
    given = tuple(seed(number) for number in text.split(","))
    if len(set(given)) < len(given):
        raise argparse.ArgumentTypeError(f"must be different numbers, found {text}")
    return given
