"""`python -m data.clinic --out DIR --seed N`: builds the sample clinic."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from configs.arguments import Parser, count
from configs.errors import one_line_errors
from configs.program import program
from data.clinic.build import Sizes, build
from data.clinic.knowledge import CONDITIONS

PROG = program("data.clinic")


def main(arguments: list[str] | None = None) -> None:
    """Builds the clinic and prints its tables."""
    parser = Parser(
        prog=PROG,
        description="Write the sample clinic: synthetic text for every stage and evaluation, and its tokenizer. The "
        "same options give the same bytes. Not medical advice.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="output folder; new, empty, or with this same clinic")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--conditions", type=Path, default=CONDITIONS, help="knowledge base, a YAML file")
    parser.add_argument("--chat", choices=("chimed", "chatml"), default="chimed", help="chat format of the tokenizer")
    for field in fields(Sizes):
        option = f"--{field.name.replace('_', '-')}"
        what = "vocabulary size of the tokenizer" if field.name == "vocabulary" else "number of rows of this table"
        parser.add_argument(option, type=count, default=field.default, metavar="N", help=what)
    given = parser.parse_args(arguments)
    sizes = Sizes(**{field.name: getattr(given, field.name) for field in fields(Sizes)})
    with one_line_errors(PROG):
        manifest, built = build(given.out, given.seed, sizes, given.conditions, given.chat)
        print(f"{given.out}: {'built' if built else 'already built, nothing changed'}")
        for name, rows in manifest["rows"].items():
            print(f"  {name:<20} {rows:>7,} rows")
        print(f"  {'tokenizer':<20} {sizes.vocabulary:>7,} tokens")


if __name__ == "__main__":
    main()
