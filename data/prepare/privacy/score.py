"""`python -m data.prepare.privacy.score FILE ...`: precision and recall of masking, by kind, on hand-labeled lines.

A line is a text in which personal data is marked as `{kind|text}`, for example `电话：{phone|13812345678}`. A match is
correct if its kind and its first and last characters are those of a mark.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from configs.arguments import Parser
from configs.errors import one_line_errors
from configs.program import program
from data.prepare.privacy.kinds import KINDS, Span
from data.prepare.privacy.masking import find_personal
from data.tables import DataError

PROG: Final = program("data.prepare.privacy.score")
_MARK: Final = re.compile(r"\{(\w+)\|([^{}]+)\}")


@dataclass
class Score:
    """Counts by kind; `wrong` has each line whose matches differ from its marks, as `(line, missed, mistaken)`."""

    right: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    marked: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[str, list[str], list[str]]] = field(default_factory=list)

    def precision(self, kind: str) -> float:
        """Returns the share of matches of a kind that are marked; 1 if there are no matches."""
        return self.right[kind] / self.found[kind] if self.found[kind] else 1.0

    def recall(self, kind: str) -> float:
        """Returns the share of marks of a kind that are found; 1 if there are no marks."""
        return self.right[kind] / self.marked[kind] if self.marked[kind] else 1.0


def read_marked(line: str) -> tuple[str, set[Span]]:
    """Returns the text of a marked line, and its personal data.

    Raises:
        DataError: a mark has an unknown kind; the message contains only the reason.
    """
    text, spans, place = "", set(), 0
    for found in _MARK.finditer(line):
        if found[1] not in KINDS:
            raise DataError(f"unknown kind '{found[1]}'; use {', '.join(KINDS)}")
        text += line[place : found.start()]
        spans.add(Span(len(text), len(text) + len(found[2]), found[1]))
        text += found[2]
        place = found.end()
    return text + line[place:], spans


def score(lines: Iterable[str]) -> Score:
    """Compares the personal data that masking finds in marked lines with their marks."""
    result = Score()
    for line in lines:
        text, marked = read_marked(line)
        found = set(find_personal(text))
        result.marked.update(span.kind for span in marked)
        result.found.update(span.kind for span in found)
        result.right.update(span.kind for span in marked & found)
        if marked != found:
            missed, mistaken = sorted(marked - found), sorted(found - marked)
            result.wrong.append((text, _shown(text, missed), _shown(text, mistaken)))
    return result


def _shown(text: str, spans: Iterable[Span]) -> list[str]:
    return [f"{span.kind} {text[span.start : span.end]}" for span in spans]


def table(result: Score) -> str:
    """Returns a table with the number of marks, the precision, and the recall of each kind."""
    rows = [f"{'kind':<18}{'marked':>8}{'precision':>11}{'recall':>8}"]
    rows += [
        f"{kind:<18}{result.marked[kind]:>8}{result.precision(kind):>11.3f}{result.recall(kind):>8.3f}"
        for kind in KINDS
    ]
    return "\n".join(rows)


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a marked file, without empty ones.

    Raises:
        DataError: the file cannot be read, or a mark has an unknown kind.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 ({error})") from error
    for number, line in enumerate(lines, 1):
        try:
            read_marked(line)
        except DataError as error:
            raise DataError(f"{path}:{number}: {error}") from error
    return [line for line in lines if line.strip()]


def main(arguments: list[str] | None = None) -> int:
    """Prints the table, and every line whose masking differs from its marks."""
    parser = Parser(prog=PROG, description="Measure precision and recall of masking personal data, by kind.")
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="text file whose lines annotate personal data, e.g. {name|王某明}",
    )
    given = parser.parse_args(arguments)
    with one_line_errors(PROG):
        lines = [line for path in given.files for line in read_lines(path)]
    result = score(lines)
    print(f"{len(lines)} lines\n{table(result)}")
    for text, missed, mistaken in result.wrong:
        print(f"{text}\n  missed: {', '.join(missed) or 'nothing'}; by mistake: {', '.join(mistaken) or 'nothing'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
