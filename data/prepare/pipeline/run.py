"""Runs a preparation: files → pieces → duplicates → shards, manifest, and report, in a folder written atomically."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np

from configs.errors import RunError
from data.prepare.options import Options
from data.prepare.outputs import MANIFEST, PAGE, REJECTS, REPORT
from data.prepare.pipeline.duplicates import NONE, Repeats, find_duplicates, shared_ids
from data.prepare.pipeline.evaluation import Evaluation
from data.prepare.pipeline.piece import Done, Task, prepare_piece
from data.prepare.pipeline.pools import Pool
from data.prepare.pipeline.report import render
from data.prepare.pipeline.shards import Places, plan_shards, write_rejects, write_shard
from data.prepare.reading.readers import read
from data.prepare.reading.sources import Piece, Source, describe, find_files, pieces_of
from data.prepare.schemas.items import Item, item_of
from data.prepare.schemas.several_rows import records_of
from data.prepare.tally import Tally
from data.tables import DataError
from storage.durable import sha256

WORK: Final = ".pieces"


@dataclass(frozen=True)
class Outcome:
    """The result of a preparation.

    Attributes:
        manifest: the content of `_manifest.json`.
        report: the content of `_report.json`.
        made: False if the folder already held the same preparation.
        replaced: what differed in the earlier preparation that was replaced; empty if none was.
    """

    manifest: dict[str, Any]
    report: dict[str, Any]
    made: bool
    replaced: str = ""


def prepare(
    inputs: Sequence[str], out: Path, options: Options, pool: Pool, decontaminate: Sequence[str] = ()
) -> Outcome:
    """Prepares files for one stage of training and writes them to the folder `out`.

    The same files under the same names and the same options give the same bytes in any pool. The output is written to
    a temporary folder, which is renamed to `out`. An earlier preparation in `out` is replaced if its inputs or options
    differ.

    Args:
        inputs: files, folders, patterns, or datasets of the Hub.
        out: the folder to write.
        options: the options of the preparation.
        pool: the pool in which the tasks run.
        decontaminate: evaluation files; text that matches one of their items is cut out, or its row is removed.

    Raises:
        DataError: there is nothing to read, an evaluation file is unusable, `out` holds something other than a
            preparation, no row is left, or, under `--on-bad fail`, a record is invalid; the message names the first
            one.
        RunError: the disk is full or not writable.
    """
    files, left_out = find_files(inputs)
    sources = list(pool.map(describe, files))
    judged = list(pool.map(describe, find_files(decontaminate)[0])) if decontaminate else []
    asked: dict[str, Any] = {
        "kind": options.kind,
        "options": options.as_json(),
        "sources": [asdict(source) for source in sources],
        "left_out": left_out,
        "evaluation": [asdict(source) for source in judged],
        "tool": _tool(options),
    }
    replaced = ""
    if out.exists():
        replaced, found = _earlier(out, asked)
        if found:
            return found
    with _writing(out), _aside(out) as folder:
        evaluation = _evaluation(judged, options) if judged else None
        try:
            manifest, report = _build(folder, sources, options, pool, evaluation, asked)
        except _NoRowLeft as error:
            raise DataError(f"{error}; {_keep_rejects(folder, out)} has every reason") from error
        _swap(folder, out)
    return Outcome(manifest, report, True, replaced)


def _build(
    folder: Path,
    sources: Sequence[Source],
    options: Options,
    pool: Pool,
    evaluation: Evaluation | None,
    asked: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    work = folder / WORK
    work.mkdir()
    # A dialogue of several records must not be cut between two pieces.
    pieces = [one for source in sources for one in ([Piece(source)] if options.dialogue_id else pieces_of(source))]
    tasks = [Task(index, piece, options, str(work), evaluation) for index, piece in enumerate(pieces)]
    tally, done = Tally(), list[Done]()
    for task, piece in zip(tasks, pool.map(prepare_piece, tasks), strict=True):
        if piece.failure:
            raise _first_bad(task, piece, tasks, done)
        done.append(piece)
        tally.add(piece.tally)
    rows = [sum(count for count, _ in piece.groups) for piece in done]
    repeats, places = find_duplicates([task.rows for task in tasks], rows, options, work), Places(tasks, done)
    write_rejects(folder / REJECTS, tasks, done, repeats, places, tally)
    if not sum(tally.rows.values()):
        raise _NoRowLeft(f"no row is left of {sum(tally.records.values())} records: {_why(tally)}")
    shards = list(pool.map(write_shard, plan_shards(tasks, done, repeats.kept, options, folder)))
    shared = _shared_ids(tasks, rows, repeats, places)
    shutil.rmtree(work)
    report = {
        "kind": options.kind,
        **tally.as_json(),
        "shared_ids": shared,
        "unused_maps": [f"{field}={column}" for field, column in options.columns if not tally.mapped[column]],
        "evaluation": _overlap(evaluation, tally) if evaluation else None,
    }
    columns = {field.name: str(field.type) for field in options.schema}
    counts = {"records": report["records"], "rows": report["rows"], "characters": report["characters"]}
    manifest = {**asked, "schema": columns, "counts": counts, "shards": shards}
    (folder / REPORT).write_text(_json(report), "utf-8")
    (folder / PAGE).write_text(render(report, asked), "utf-8")
    (folder / MANIFEST).write_text(_json(manifest), "utf-8")
    return manifest, report


def _shared_ids(tasks: Sequence[Task], counts: Sequence[int], repeats: Repeats, places: Places) -> dict[str, Any]:
    """Counts kept rows that have the `id` of an earlier row of their file, and locates the first one and that row."""
    earlier = shared_ids([task.rows for task in tasks], counts)
    rows = np.flatnonzero((earlier != NONE) & repeats.kept)
    return {"rows": len(rows), "first": [places[one] for row in rows[:1].tolist() for one in (row, int(earlier[row]))]}


def _first_bad(task: Task, piece: Done, tasks: Sequence[Task], done: Sequence[Done]) -> DataError:
    assert piece.failure
    line, reason = piece.failure
    source = task.piece.source
    line += sum(before.lines for other, before in zip(tasks, done, strict=False) if other.piece.source == source)
    return _bad(f"{source.path}:{line}", reason)


def _bad(where: str, reason: str) -> DataError:
    return DataError(f"{where}: {reason}; repair it, or skip such rows with --on-bad skip")


def _why(tally: Tally) -> str:
    """Returns the most frequent reasons, each with its first record's details, and the steps that removed most rows."""
    bad = [f"{count} {_reason(tally.bad.first[kind])}" for kind, count in tally.bad.counts.most_common(3)]
    return ", ".join([*bad, *(f"{count} removed by {step}" for step, count in tally.removed.most_common(3))])


def _reason(first: str) -> str:
    """Converts `FILE:LINE: reason` to `reason (first at FILE:LINE)`."""
    where, _, reason = first.partition(": ")
    return f"{reason} (first at {where})"


class _NoRowLeft(DataError):
    """Every record was rejected or removed."""


def _keep_rejects(folder: Path, out: Path) -> Path:
    """Moves `_rejects.jsonl` of a preparation without rows to `out`, or next to it if `out` holds an earlier one."""
    if (out / MANIFEST).exists():
        kept = out.with_name(f"{out.name}.rejects.jsonl")
        os.replace(folder / REJECTS, kept)
        return kept
    shutil.rmtree(folder / WORK)
    _swap(folder, out)
    return out / REJECTS


def _evaluation(sources: Iterable[Source], options: Options) -> Evaluation:
    items: list[Item] = []
    for source in sources:
        for found in read(Piece(source), replace(options, text_unit="line")):
            try:
                if found.bad:
                    raise DataError(found.bad)
                items += [item_of(record, options) for record in records_of(found.record, options)]
            except DataError as error:
                raise DataError(
                    f"--decontaminate {source.path}:{found.line}: {error}; repair the evaluation file"
                ) from error
    return Evaluation(items, options.ngram)


def _overlap(evaluation: Evaluation, tally: Tally) -> dict[str, int]:
    return {
        "items": evaluation.items,
        "looked_for_as_whole_lines": evaluation.only_whole,
        "too_short_to_look_for": evaluation.too_short,
        "passages_cut": tally.overlap["passages"],
        "characters_cut": tally.overlap["passage_characters"],
        "rows_removed": tally.overlap["rows"],
        "characters_removed": tally.overlap["row_characters"],
    }


def _tool(options: Options) -> dict[str, str]:
    """Returns what else determines the output: a hash of the code, and the versions of packages that write or hash."""
    here = Path(__file__).parent.parent
    code = [
        *sorted(here.rglob("*.py")),
        *sorted(here.rglob("*.jinja")),
        *sorted((here.parent / "chat").glob("*.py")),
        *sorted((here.parent / "choices").glob("*.py")),
        *sorted((here.parent / "files").glob("*.py")),
        here.parent / "tables.py",
    ]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in code)).hexdigest()
    packages = ["pyarrow", *(["rensa"] if options.takes("near") else [])]
    return {"code": digest[:16], **{name: version(name) for name in packages}}


def _earlier(out: Path, asked: dict[str, Any]) -> tuple[str, Outcome | None]:
    """Returns what differs between the preparation in `out` and the requested one, and the former if nothing differs.

    Returns:
        `(differences, outcome)`: the outcome is None if anything differs or `out` holds no preparation.

    Raises:
        DataError: `out` is a file, or holds something other than a preparation.
    """
    if not out.is_dir():
        raise DataError(f"{out}: is a file; name a folder")
    if {file.name for file in out.iterdir()} <= {REJECTS}:
        return "", None
    try:
        manifest = json.loads((out / MANIFEST).read_text("utf-8"))
        report = json.loads((out / REPORT).read_text("utf-8"))
        shards = {shard["file"]: shard["sha256"] for shard in manifest["shards"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{out}: is not empty and holds no prepared data; choose another folder") from error
    wanted = json.loads(_json(asked))
    different = [key for key in wanted if manifest.get(key) != wanted[key]]
    different += [name for name, sha in shards.items() if not (out / name).is_file() or sha256(out / name) != sha]
    if different:
        return ", ".join(different), None
    return "", Outcome(manifest, report, False)


@contextmanager
def _aside(out: Path) -> Iterator[Path]:
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # does nothing on success: the folder has been renamed


def _swap(folder: Path, out: Path) -> None:
    """Replaces `out` by the finished folder, so that `out` never holds a partial preparation."""
    if out.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
        os.replace(out, old)
        os.replace(folder, out)
        shutil.rmtree(old)
    else:
        os.replace(folder, out)


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{out}: cannot be written ({error.strerror or error}); nothing was left there: make room, or name another "
            "folder with --out"
        ) from error


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"
