"""A run's folder `runs/NAME/`: its settings, its metrics, and the marker that it is finished.

    config.yaml     the settings as resolved; `--config runs/NAME/config.yaml` repeats the run
    inputs.json     checksums of the input files
    metrics.jsonl   one line per step: {"step": 3, "time": 1770000000.0, "loss": 2.1, ...}
    tb/             the same metrics for TensorBoard
    DONE            written last: the summary, as JSON

Only one driver at a time can open a run. Repeating the command continues the run, or reports that it is finished. With
more steps or epochs, it makes the run longer, unless the learning rate decays.

config.yaml and DONE contain their own checksums. A damaged line of metrics.jsonl is reported and dropped, because no
computation depends on it.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

from cluster.liveness.heartbeat import DriverHeartbeat
from configs.base import Section, dump, read
from configs.errors import ConfigError
from configs.recipe import short
from storage.durable import checked_json, checksum_fault, json_with_checksum, replace_file, sync, with_checksum, writing
from storage.paths import runs_root
from trainers.runs.contents import require_same_contents
from trainers.runs.events import TensorBoard, flat
from trainers.runs.progress import Progress

logger = logging.getLogger(__name__)

_MOST_NAMED = 5  # changed settings that an error names


@dataclass(frozen=True)
class _Changed:
    """What differs from the settings that a run was started with, as text, and whether it becomes longer."""

    text: str = ""
    longer: bool = False


class Run:
    """An open run. Use it as a context manager, which closes the files and releases the run's lock at the end.

    Args:
        name: the folder below `runs_root()`, e.g. `quickstart/ppo`.
        config: the stage's settings.

    Raises:
        ConfigError: the name is invalid, another driver has the run open, or the run was started with other settings or
            inputs.
        DiskError: the folder cannot be written.
    """

    def __init__(self, name: str, config: Section) -> None:
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or parts[0] in ("/", "runs"):
            raise ConfigError(f"run {name!r}: is not a folder below {runs_root()}; give a name such as quickstart/ppo")
        self.name, self.config = name, config
        self.path = runs_root().joinpath(*parts)
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.path)
        try:
            changed = self._check_or_write_config()
            require_same_contents(self.path, config)
            self.finished = _read_done(self.path / "DONE")
            if self.finished is not None and changed.longer:
                self._reopen()
            if changed.text and self.finished is None:
                logger.info("continuing with %s", changed.text)
                self._write_config()
            _drop_damaged_lines(self.path / "metrics.jsonl")
            self._metrics = self._open_metrics()
            self._tensorboard = TensorBoard(self.path / "tb", flat(config.model_dump(mode="json")))
            self._heartbeat: DriverHeartbeat | None = None
        except BaseException:
            os.close(self._lock)
            raise

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends one line of metrics, and writes them to TensorBoard. NaN and infinities become null in the file.

        Raises:
            DiskError: a file cannot be written.
        """
        values = {name: float(value) for name, value in metrics.items()}
        line = {name: value if math.isfinite(value) else None for name, value in values.items()}
        content = json.dumps({"step": step, "time": round(time.time(), 3), **line}).encode() + b"\n"
        with writing(self.path / "metrics.jsonl"):
            while content:
                content = content[self._metrics.write(content) :]
        self._tensorboard.add_scalars(step, values)
        if self._heartbeat:
            self._heartbeat.step(step, values)

    def shown(self) -> DriverHeartbeat:
        """Returns a context in which `python -m cluster.status` and Prometheus show this run.

        The process must be connected to a Ray cluster.
        """
        self._heartbeat = DriverHeartbeat(self.name, self.config.recipe_key, self.path)
        return self._heartbeat

    def metrics(self) -> list[dict[str, Any]]:
        """Returns every line logged so far, in order."""
        return list(read_metrics(self.path))

    def rewind(self, step: int) -> None:
        """Removes the metrics of the steps after `step`, which are about to be repeated."""
        kept = [json.dumps(line) + "\n" for line in self.metrics() if line["step"] <= step]
        write_atomically(self.path / "metrics.jsonl", "".join(kept))
        self._metrics.close()
        self._metrics = self._open_metrics()
        self._tensorboard.void_from(step + 1)

    def progress(self, total: int, start: int = 0, show: tuple[str, ...] = ()) -> Progress:
        """Returns the stage's progress bar; see `Progress`."""
        if self._heartbeat:
            self._heartbeat.plan(total, start)
        return Progress(self.config.recipe_key, total, start, show)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Marks the run as finished; its outputs must be complete on disk."""
        self.finished = dict(summary)
        replace_file(self.path / "DONE", json_with_checksum(self.finished))

    def finished_text(self) -> str:
        """Returns the message for a user who starts a finished run."""
        return (
            f"{self.path} is finished; nothing to do: look at it with chimed report {self.path}, or train again with "
            f"--name={_next_name(self.name)}"
        )

    def close(self) -> None:
        """Releases the run's lock and closes its files, which already contain everything that was logged."""
        self._metrics.close()
        self._tensorboard.close()
        os.close(self._lock)

    def _open_metrics(self) -> FileIO:
        """Opens metrics.jsonl unbuffered, so that a full disk raises an error when a line is written, not at close."""
        with writing(self.path / "metrics.jsonl"):
            return (self.path / "metrics.jsonl").open("ab", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _check_or_write_config(self) -> _Changed:
        """Compares the settings with config.yaml, or writes it if it does not exist.

        Raises:
            ConfigError: a setting differs that may not change, or config.yaml is damaged.
        """
        path, stage = self.path / "config.yaml", self.config.recipe_key
        if not path.exists():
            self._write_config()
            return _Changed()
        if damage := checksum_fault(path.read_bytes(), required=False):
            raise ConfigError(
                f"{path}: {damage}; restore the file, or delete it to continue with the settings of this command"
            )
        stored = read(stage, {stage: type(self.config)}, ["--config", str(path)])
        may_change, may_grow = type(self.config).may_change, type(self.config).may_grow
        before, now = (config.model_dump(mode="json") for config in (stored, self.config))
        differences = {key: (old, new) for key, old, new in _differences(before, now, "")}
        longer = {key for key, values in differences.items() if key in may_grow and _is_larger(*values)}
        free = {key for key in differences if key.partition(".")[0] in may_change}
        kept = differences.keys() - free - (set() if self.config.length_matters else longer)
        if found := [key for key in differences if key in kept]:
            named = [
                f"{stage}.{key} = {short(differences[key][0])}, not {short(differences[key][1])}"
                for key in found[:_MOST_NAMED]
            ]
            more = [f"{len(found) - len(named)} more"] if len(found) > len(named) else []
            reason = "" if kept - longer else self._reason_for_its_length()
            raise ConfigError(
                f"{path}: this run was started with {'; '.join([*named, *more])}{reason}; continue it with the old "
                f"value{'s' if len(found) > 1 else ''}, start another run with --name={_next_name(self.name)}, or delete the "
                "folder"
            )
        changed = [f"{stage}.{key} = {short(new)} instead of {short(old)}" for key, (old, new) in differences.items()]
        return _Changed("; ".join(changed), bool(longer))

    def _reason_for_its_length(self) -> str:
        reason = "; its learning rate decays towards its last step, so it cannot be made longer"
        flag = self.config.longer_with
        return f"{reason}, except with {flag}" if flag else reason

    def _reopen(self) -> None:
        """Makes a finished run one that has steps left. Its model is replaced when it finishes again."""
        with writing(self.path / "DONE"):
            (self.path / "DONE").unlink()
            sync(self.path)
        self.finished = None

    def _write_config(self) -> None:
        path = self.path / "config.yaml"
        with writing(path):
            aside = path.with_name("config.yaml.new")
            dump(self.config, aside)
            replace_file(path, with_checksum(aside.read_text(encoding="utf-8")))
            aside.unlink()


def _next_name(name: str) -> str:
    """Returns the first of NAME-2, NAME-3, ... that no run has."""
    base, _, number = name.rpartition("-")
    base, start = (base, int(number)) if base and number.isdecimal() else (name, 1)
    return next(
        free for count in itertools.count(start + 1) if not (runs_root() / (free := f"{base}-{count}")).exists()
    )


def already_finished(name: str, config: Section) -> bool:
    """Returns whether the run is finished, and logs it if so. Does not create a folder for a new run.

    Raises:
        ConfigError: the run exists with other settings; see `Run`.
    """
    if not runs_root().joinpath(name).exists():
        return False
    with Run(name, config) as run:
        if run.finished:
            logger.info("%s", run.finished_text())
        return run.finished is not None


def read_metrics(run: Path) -> Iterator[dict[str, Any]]:
    """Yields the lines of a run's metrics.jsonl, which may still be growing; nothing if the file does not exist.

    Raises:
        ConfigError: a line is not valid JSON; the message names the file and the line.
    """
    path = run / "metrics.jsonl"
    if not path.exists():
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ConfigError(f"{path}:{number}: is not valid JSON; repair or remove the line") from error


def in_use(folder: Path) -> bool:
    """Returns whether a driver on this machine has opened the run in `folder`.

    Reads the kernel's table of locks: trying to lock the run could make a driver that starts now fail.
    """
    try:
        lock = (folder / ".lock").stat()
    except FileNotFoundError:
        return False
    place = f"{os.major(lock.st_dev):02x}:{os.minor(lock.st_dev):02x}:{lock.st_ino}"
    return any(place in line.split() for line in Path("/proc/locks").read_text().splitlines())


def _locked(folder: Path) -> int:
    """Locks the folder. Returns a file descriptor that holds the lock until it is closed or the process ends.

    Raises:
        ConfigError: another process holds the lock; the message contains its process id.
    """
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 32).decode(errors="replace").strip() or "?"
        os.close(descriptor)
        raise ConfigError(
            f"{folder}: another process (pid {holder}) is writing to this run; wait for it or choose another run name"
        ) from error
    os.truncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def _differences(old: Any, new: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    """Yields every key whose values differ, the old value, and the new value."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*new, *(name for name in old if name not in new)]:
            yield from _differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
    elif old != new:
        yield key, old, new


def _is_larger(old: float | None, new: float | None) -> bool:
    """Returns whether a limit was raised; None is no limit."""
    return old is not None and (new is None or new > old)


def _drop_damaged_lines(path: Path) -> None:
    """Removes an incomplete last line, which a crash leaves, and invalid lines, which are also reported."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith(b"\n")]
    good = [line for line in whole if _is_metrics(line)]
    for number, line in enumerate(whole, start=1):
        if not _is_metrics(line):
            logger.warning("%s:%d: damaged (not a line of metrics); removing the line", path, number)
    if len(good) < len(lines):
        replace_file(path, b"".join(good))


def _is_metrics(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line)["step"], int)
    except (ValueError, TypeError, KeyError):
        return False


def _read_done(path: Path) -> dict[str, Any] | None:
    """Returns the summary of a finished run; None for an unfinished one.

    A damaged file is reported and renamed to DONE.damaged, so that the run counts as unfinished.
    """
    if not path.exists():
        return None
    if (content := checked_json(path.read_bytes())) is not None:
        return content
    with writing(path):
        path.replace(path.with_name("DONE.damaged"))
    logger.warning(
        "%s: damaged; renamed to DONE.damaged, and the run continues from its newest intact checkpoint", path
    )
    return None


def write_atomically(path: Path, text: str) -> None:
    """Replaces a text file atomically; see `replace_file`.

    Raises:
        DiskError: the file cannot be written.
    """
    replace_file(path, text.encode())
