"""python -m data.tokenizer: trains a tokenizer on texts, or adds pieces to an existing one.

python -m data.tokenizer train --input PATH … --vocabulary N --out DIR
python -m data.tokenizer extend --tokenizer DIR --input PATH … --more N --out DIR
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from transformers import PreTrainedTokenizerFast

from configs.arguments import Parser
from configs.errors import one_line_errors
from configs.program import program
from data.files.records import whole_text
from data.tables import DataError
from data.tokenizer.training import CHAT_TOKENS, load, save_extended, texts_in, train_tokenizer
from data.tokenizer.vocabulary import extend
from storage.durable import writing

PROG: Final = program("data.tokenizer")


def parser() -> Parser:
    """Builds the command line parser."""
    found = Parser(prog=PROG, description="Train a tokenizer, or extend one with more tokens.")
    commands = found.add_subparsers(required=True, dest="command")
    train = commands.add_parser("train", help="train a new byte-level BPE tokenizer")
    train.add_argument(
        "--vocabulary", type=int, required=True, metavar="N", help="vocabulary size, including special tokens"
    )
    train.add_argument("--chat", choices=CHAT_TOKENS, default="chimed", help="chat format")
    train.add_argument(
        "--names", type=Path, metavar="FILE", help="file with words that are never merged with others, one per line"
    )
    more = commands.add_parser("extend", help="add tokens to an existing BPE tokenizer; existing ids do not change")
    more.add_argument("--tokenizer", type=Path, required=True, metavar="DIR", help="folder of the existing tokenizer")
    more.add_argument("--more", type=int, required=True, metavar="N", help="number of tokens to add")
    for command in (train, more):
        command.add_argument(
            "--input", nargs="+", required=True, metavar="PATH", help="folders written by data.prepare"
        )
        command.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder; must not exist")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Trains or extends a tokenizer, and prints its statistics on the texts; an error is reported in one line."""
    given = parser().parse_args(arguments)
    with one_line_errors(PROG):
        if given.out.exists():
            raise DataError(f"--out {given.out}: already exists; name a new folder")
        with _folder(given.out) as aside:
            if given.command == "train":
                names = whole_text(given.names).split() if given.names else []
                train_tokenizer(texts_in(given.input), names, given.vocabulary, given.chat).save_pretrained(aside)
            else:
                old = load(given.tokenizer)
                save_extended(old, extend(old.backend_tokenizer, lambda: texts_in(given.input), given.more), aside)
        print(json.dumps(figures(load(given.out), texts_in(given.input))))
    return 0


@contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """Yields a temporary folder, which is renamed to `out` on success and removed otherwise."""
    aside = out.with_name(f"{out.name}.new")
    with writing(aside):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            yield aside
            aside.rename(out)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def figures(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], most: int = 1000) -> dict[str, float]:
    """Returns the vocabulary size, and the number of characters per token in the first `most` texts."""
    some = [text for text, _ in zip(texts, range(most), strict=False)]
    tokens = sum(map(len, tokenizer(some, add_special_tokens=False, verbose=False)["input_ids"]))
    return {"vocabulary": len(tokenizer), "characters_a_token": round(sum(map(len, some)) / tokens, 3)}


if __name__ == "__main__":
    sys.exit(main())
