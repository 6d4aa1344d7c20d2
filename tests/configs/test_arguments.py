"""Errors of command lines: one line, with the closest valid name."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest

from configs import program as names
from configs.arguments import Parser, count
from configs.program import program, spelled, use_chimed


@pytest.fixture
def started_as_chimed() -> Iterator[None]:
    use_chimed({"trainers.ppo": "ppo", "serve": "serve", "serve.rotate": "rotate"})
    yield
    names._names.clear()


def test_text_names_commands_as_they_were_started(started_as_chimed: None) -> None:
    assert program("trainers.ppo") == "chimed ppo"
    assert program("benchmarks.soak") == "python -m benchmarks.soak"
    assert spelled("`python -m serve`, python -m serve.rotate. python -m serve: x") == (
        "`chimed serve`, chimed rotate. chimed serve: x"
    )


def test_without_chimed_nothing_is_replaced() -> None:
    assert program("trainers.ppo") == "python -m trainers.ppo"
    assert spelled("run python -m serve model=DIR") == "run python -m serve model=DIR"


def make_parser() -> Parser:
    parser = Parser(prog="prog", description="Run python -m serve.")
    parser.add_argument("--model", required=True)
    parser.add_argument("--kind", choices=("text", "chat"))
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("show").add_argument("--step")
    return parser


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("--modle=x", "unrecognized arguments: --modle; did you mean '--model'?; --help lists the arguments"),
        ("--model x --knid=a", "unrecognized arguments: --knid=a; did you mean '--kind'?; --help lists the arguments"),
        (
            "--model x --kind chta",
            "argument --kind: invalid choice: 'chta' (choose from 'text', 'chat'); did you mean 'chat'?; "
            "--help lists the arguments",
        ),
        (
            "--model x show --setp 3",
            "unrecognized arguments: --setp 3; did you mean '--step'?; --help lists the arguments",
        ),
        ("--kind chat", "the following arguments are required: --model; --help lists the arguments"),
        ("--model x --zzz", "unrecognized arguments: --zzz; --help lists the arguments"),
    ],
)
def test_an_invalid_argument_is_one_line(arguments: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        make_parser().parse_args(arguments.split())
    assert capsys.readouterr().err == f"prog: error: {line}\n"


def test_the_description_names_commands_as_they_were_started(started_as_chimed: None) -> None:
    assert make_parser().description == "Run chimed serve."


def test_a_count_is_at_least_one(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser(prog="prog")
    parser.add_argument("--limit", type=count)
    assert parser.parse_args(["--limit", "12"]).limit == 12
    for text, said in (
        ("0", "must be at least 1, found 0"),
        ("-3", "must be at least 1"),
        ("x", "invalid count value"),
    ):
        with pytest.raises(SystemExit):
            parser.parse_args([f"--limit={text}"])
        assert f"argument --limit: {said}" in capsys.readouterr().err
