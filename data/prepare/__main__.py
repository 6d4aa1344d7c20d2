"""`python -m data.prepare --input PATH ... --kind KIND --out DIR`: converts raw files to tables for the trainers."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.arguments import Parser
from configs.errors import ConfigError, one_line_errors
from configs.logs import configure
from configs.program import program
from data.prepare.options import SCHEMAS, STEPS, TEXT_UNITS, Options
from data.prepare.outputs import MANIFEST, PAGE, REJECTS
from data.prepare.pipeline.pools import OnRay, Pool, open_pool
from data.prepare.pipeline.report import labels_of
from data.prepare.pipeline.run import Outcome, prepare
from data.prepare.privacy.kinds import KINDS
from data.prepare.reading.sources import find_files
from data.prepare.schemas.convert import FIELDS

PROG = program("data.prepare")
MOST_SAID = 10
"""Maximum number of kinds of rejected records that the console lists."""


def parser() -> Parser:
    """Builds the command line parser; its defaults are those of `Options`."""
    default = Options("text")
    found = Parser(
        prog=PROG,
        description="Clean files of text, chats, preference pairs or prompts into Parquet shards, with a report.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = found.add_argument
    add(
        "--input",
        nargs="+",
        required=True,
        metavar="PATH",
        help="input files, folders, glob patterns, or hf://datasets/ORG/NAME/SPLIT",
    )
    add("--kind", choices=list(SCHEMAS), required=True, help="kind of the output table")
    add("--out", type=Path, required=True, metavar="DIR", help="output folder")
    add(
        "--map",
        action="append",
        default=[],
        metavar="FIELD=COLUMN",
        help=f"column that holds a field; repeatable. Fields: {', '.join(FIELDS)}",
    )
    add(
        "--dialogue-id",
        metavar="COLUMN",
        help="join adjacent records that have the same value in this column into one dialogue",
    )
    add(
        "--first-option",
        type=int,
        choices=(0, 1),
        help="number of the first option, if exam answers are given as option numbers",
    )
    add(
        "--on-bad",
        choices=["skip", "fail"],
        default="skip",
        help="skip: list bad rows in _rejects.jsonl and continue; fail: stop at the first bad row",
    )
    _add_steps(found, default)
    _add_limits(found, default)
    add("--shard-bytes", type=int, default=default.shard_bytes, metavar="N", help="text per output shard, in bytes")
    add(
        "--workers",
        type=int,
        metavar="N",
        help="number of processes; if not given, the Ray cluster at RAY_ADDRESS, or else one per local CPU",
    )
    add("--insecure", action="store_true", help="join a Ray cluster that other machines can reach without a token")
    return found


def _add_steps(parser: Parser, default: Options) -> None:
    """Adds the options that choose cleaning steps."""
    add = parser.add_argument
    add(
        "--skip",
        action="append",
        default=[],
        choices=STEPS,
        metavar="STEP",
        help=f"cleaning step to skip; repeatable. Steps: {', '.join(STEPS)}",
    )
    add(
        "--keep",
        action="append",
        default=[],
        choices=KINDS,
        metavar="KIND",
        help=f"kind of personal data to leave unmasked; repeatable. Kinds: {', '.join(KINDS)}",
    )
    add(
        "--decontaminate",
        nargs="+",
        default=[],
        metavar="PATH",
        help="evaluation files; rows that contain their items are cut or removed",
    )
    add(
        "--text-unit",
        choices=TEXT_UNITS,
        default=default.text_unit,
        help="unit of a text file that becomes one document",
    )


def _add_limits(parser: Parser, default: Options) -> None:
    """Adds the options that set the thresholds of cleaning."""
    add = parser.add_argument
    add(
        "--min-chars",
        type=int,
        metavar="N",
        help="minimum row length in characters; if not given, 10 for text and 2 for other kinds",
    )
    add(
        "--max-chars",
        type=int,
        default=default.max_chars,
        metavar="N",
        help="maximum row length in characters; longer texts are split, longer rows of other kinds removed",
    )
    add(
        "--max-repeated",
        type=float,
        default=default.max_repeated,
        metavar="P",
        help="maximum fraction of a row that may repeat earlier parts of the row, 0 to 1",
    )
    add(
        "--near-threshold",
        type=float,
        default=default.near_threshold,
        metavar="P",
        help="minimum fraction of shared tokens for long rows to count as near duplicates, 0 to 1",
    )
    add(
        "--near-answers",
        choices=["same", "any"],
        default=default.near_answers,
        help="same: near duplicates must also have the same answer; any: compare only the questions",
    )
    add(
        "--ngram",
        type=int,
        default=default.ngram,
        metavar="N",
        help="consecutive tokens (Chinese characters, Latin words, numbers) that count as a match with an evaluation item",
    )
    add(
        "--max-row-bytes",
        type=int,
        default=default.max_row_bytes,
        metavar="N",
        help="maximum size of a line or JSON element, in bytes; longer ones are rejected",
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs a preparation and prints a summary: records read, rows written or removed, and the path of the report."""
    given = parser().parse_args(arguments)
    configure("data.prepare")
    with one_line_errors(PROG):
        options = _options(given)
        size = sum(Path(file).stat().st_size for file in find_files(given.input)[0])
        with _pool(given.workers, size, given.insecure) as pool:
            outcome = prepare(given.input, given.out, options, pool, given.decontaminate)
    _say(outcome, given.out)
    return 0


@contextmanager
def _pool(workers: int | None, size: int, insecure: bool) -> Iterator[Pool]:
    """Yields a pool on the Ray cluster of `$RAY_ADDRESS`, which every submitted job has, else a pool on this machine.

    If `--workers` is given, the pool is on this machine in any case.
    """
    if workers is None and os.environ.get("RAY_ADDRESS", "local") not in ("", "local"):
        from cluster.connect import connect

        with connect(insecure=insecure):
            yield OnRay()
    else:
        with open_pool(workers, size) as pool:
            yield pool


def _options(given: argparse.Namespace) -> Options:
    columns = []
    for pair in given.map:
        field, equals, column = pair.partition("=")
        if not equals or not column or field not in FIELDS:
            raise ConfigError(f"--map {pair}: give FIELD=COLUMN, FIELD one of {', '.join(FIELDS)}")
        columns.append((field, column))
    if given.workers is not None and given.workers < 1:
        raise ConfigError(f"--workers {given.workers}: must be at least 1")
    return Options(
        kind=given.kind,
        columns=tuple(columns),
        skip=tuple(sorted(set(given.skip))),
        keep=tuple(sorted(set(given.keep))),
        on_bad=given.on_bad,
        text_unit=given.text_unit,
        min_chars=given.min_chars,
        max_chars=given.max_chars,
        max_repeated=given.max_repeated,
        near_threshold=given.near_threshold,
        near_answers=given.near_answers,
        ngram=given.ngram,
        max_row_bytes=given.max_row_bytes,
        shard_bytes=given.shard_bytes,
        first_option=given.first_option,
        dialogue_id=given.dialogue_id,
    )


def _say(outcome: Outcome, out: Path) -> None:
    report = outcome.report
    if not outcome.made:
        print(f"{out}: already prepared from these inputs, nothing changed")
    elif outcome.replaced:
        print(f"{out}: prepared again, because these changed: {outcome.replaced}")
    else:
        print(f"{out}: prepared")
    print(f"  {report['records']:>10,} records in, {report['rows']:,} rows out, {report['characters']:,} characters")
    if report["more"]:
        print(f"  {report['more']:>10,} extra rows, from records with several rows and from split documents")
    bad = sorted(report["bad"].items(), key=lambda item: -item[1])
    for kind, count in bad[:MOST_SAID]:
        print(f"  {count:>10,} bad: {kind}\n{'':>17}first: {report['first_bad'][kind]}")
    if bad[MOST_SAID:]:
        count = sum(count for _, count in bad[MOST_SAID:])
        print(f"  {count:>10,} bad for {len(bad) - MOST_SAID} other reasons; all are listed in {out / REJECTS}")
    for name, count in report["removed"].items():
        print(f"  {count:>10,} removed by {name}")
    if overlap := report["evaluation"]:
        print(
            f"  {overlap['items']:>10,} evaluation items; {overlap['looked_for_as_whole_lines']:,} matched only as whole lines, "
            f"{overlap['too_short_to_look_for']:,} not matched, because they are too short"
        )
        print(
            f"  {overlap['passages_cut']:>10,} passages with evaluation items cut ({overlap['characters_cut']:,} characters); "
            f"{overlap['rows_removed']:,} rows with evaluation items removed ({overlap['characters_removed']:,} characters)"
        )
    if count := report["shared_ids"]["rows"]:
        row, earlier = report["shared_ids"]["first"]
        print(
            f"  {count:>10,} records repeat the id of an earlier record with different content (e.g. {row} and {earlier}); "
            "if they are turns of one dialogue, join them with --dialogue-id id"
        )
    for given in report["unused_maps"]:
        print(f"  {'no':>10} record has the column in --map {given}")
    for kind, count in report["masked"].items():
        print(f"  {count:>10,} masked: {kind}")
    for label, count in labels_of(report).items():
        print(f"  {count:>10,} sections of classical texts: label {label}： removed")
    if outcome.manifest["left_out"]:
        print(f"  {len(outcome.manifest['left_out']):>10,} files of unknown type skipped; {MANIFEST} lists them")
    print(f"  {out / PAGE}")


if __name__ == "__main__":
    sys.exit(main())
