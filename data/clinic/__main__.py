"""`python -m data.clinic --out DIR --seed N`: builds the sample clinic."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from configs.arguments import count
from data.clinic.build import Sizes, build
from data.clinic.knowledge import CONDITIONS
from data.tables import DataError


def main(arguments: list[str] | None = None) -> int:
    """Builds the clinic and prints its tables; returns 0, or 1 after one line on stderr for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m data.clinic",
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
    try:
        manifest, built = build(given.out, given.seed, sizes, given.conditions, given.chat)
    except (DataError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{given.out}: {'built' if built else 'already built, nothing changed'}")
    for name, rows in manifest["rows"].items():
        print(f"  {name:<20} {rows:>7,} rows")
    print(f"  {'tokenizer':<20} {sizes.vocabulary:>7,} tokens")
    return 0


if __name__ == "__main__":
    sys.exit(main())
