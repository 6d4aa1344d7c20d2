"""A run's folder `runs/NAME/`: its settings, its metrics, and whether it is finished.

    config.yaml     the settings as resolved; `--config runs/NAME/config.yaml` repeats the run
    metrics.jsonl   a line a step: {"step": 3, "time": 1770000000.0, "loss": 2.1, ...}
    tb/             the same for TensorBoard
    DONE            written last: the summary, as JSON

One driver at a time holds a run; the same command again continues it, or says that it is finished.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

from cluster.paths import runs_root
from cluster.pulse import DriverPulse
from configs.base import Section, dump, read
from configs.recipe import ConfigError, short
from trainers.events import TensorBoard
from trainers.progress import Progress


class Run:
    """An open run. Use it as a context manager: leaving it closes the files and gives the run free.

    Args:
        name: the folder below `runs_root()`, e.g. `quickstart/ppo`.
        config: the stage's settings.

    Raises:
        ConfigError: a bad name, another driver in the same run, or a run that was started with other settings.
    """

    def __init__(self, name: str, config: Section) -> None:
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or parts[0] in ("/", "runs"):
            raise ConfigError(f"run {name!r}: give a name such as quickstart/ppo, a folder below {runs_root()}")
        self.name, self.config = name, config
        self.path = runs_root().joinpath(*parts)
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.path)
        try:
            self._check_or_write_config()
            self.finished: dict[str, Any] | None = _read_json(self.path / "DONE")
            self._metrics = open(self.path / "metrics.jsonl", "a+", encoding="utf-8")  # noqa: SIM115 (closed by close)
            _drop_torn_line(self.path / "metrics.jsonl")
            self._tensorboard = TensorBoard(self.path / "tb")
            self._pulse: DriverPulse | None = None
        except BaseException:
            os.close(self._lock)
            raise

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line of metrics, and the same to TensorBoard. NaN and infinities become null in the file."""
        values = {name: float(value) for name, value in metrics.items()}
        line = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._metrics.write(json.dumps({"step": step, "time": round(time.time(), 3), **line}) + "\n")
        self._metrics.flush()
        self._tensorboard.add_scalars(step, values)
        if self._pulse:
            self._pulse.step(step, values)

    def shown(self) -> DriverPulse:
        """A context, on a cluster, in which `python -m cluster.status` and Prometheus see this run."""
        self._pulse = DriverPulse(self.name, self.config.recipe_key, self.path)
        return self._pulse

    def metrics(self) -> list[dict[str, Any]]:
        """Every line logged so far, in order."""
        return list(read_metrics(self.path))

    def rewind(self, step: int) -> None:
        """Forget the metrics of the steps after `step`, which are about to be made again."""
        kept = [json.dumps(line) + "\n" for line in self.metrics() if line["step"] <= step]
        self._metrics.close()
        write_whole(self.path / "metrics.jsonl", "".join(kept))
        self._metrics = open(self.path / "metrics.jsonl", "a+", encoding="utf-8")  # noqa: SIM115 (closed by close)
        self._tensorboard.void_from(step + 1)

    def progress(self, total: int, start: int = 0, show: tuple[str, ...] = ()) -> Progress:
        """The stage's progress bar; see `Progress`."""
        if self._pulse:
            self._pulse.plan(total, start)
        return Progress(self.config.recipe_key, total, start, show)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Mark the run as finished; its outputs must be complete on disk."""
        self.finished = dict(summary)
        write_whole(self.path / "DONE", json.dumps(self.finished, ensure_ascii=False, indent=1) + "\n")

    def finished_text(self) -> str:
        """What to tell someone who starts a finished run."""
        return f"{self.path} is finished; nothing to do (delete the folder to train it again)"

    def close(self) -> None:
        self._metrics.close()
        self._tensorboard.close()
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _check_or_write_config(self) -> None:
        path, stage = self.path / "config.yaml", self.config.recipe_key
        if not path.exists():
            aside = path.with_name("config.yaml.new")
            dump(self.config, aside)
            aside.replace(path)
            return
        stored = read(stage, {stage: type(self.config)}, ["--config", str(path)])
        difference = _first_difference(stored.model_dump(mode="json"), self.config.model_dump(mode="json"), stage)
        if difference:
            key, old, new = difference
            raise ConfigError(
                f"{path}: this run was started with {key} = {short(old)}, not {short(new)}; "
                "continue it with the old value, choose another run name, or delete the folder"
            )


def already_finished(name: str, config: Section) -> bool:
    """Whether the run is finished, which is then said. Makes nothing; a run that is there must have these settings.

    Raises:
        ConfigError: see `Run`.
    """
    if not runs_root().joinpath(name).exists():
        return False
    with Run(name, config) as run:
        if run.finished:
            print(run.finished_text())
        return run.finished is not None


def read_metrics(run: Path) -> Iterator[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, also while it is being written; nothing if there is none yet."""
    path = run / "metrics.jsonl"
    if not path.exists():
        return
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith("\n"):
                return
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise ConfigError(f"{path}:{number}: not a line of JSON; repair or remove it") from error


def _locked(folder: Path) -> int:
    """A file descriptor that holds the folder's lock until it is closed, or its process ends."""
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 32).decode().strip() or "?"
        os.close(descriptor)
        raise ConfigError(
            f"{folder}: another process (pid {holder}) is writing this run; wait for it or choose another run name"
        ) from error
    os.truncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def _first_difference(old: Any, new: Any, key: str) -> tuple[str, Any, Any] | None:
    """The first key whose values differ, with both."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*new, *(name for name in old if name not in new)]:
            found = _first_difference(old.get(name), new.get(name), f"{key}.{name}")
            if found:
                return found
        return None
    return None if old == new else (key, old, new)


def _drop_torn_line(path: Path) -> None:
    """Cut off a last line that a crash left incomplete."""
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def write_whole(path: Path, text: str) -> None:
    """Replace a file at once: a reader sees the old one or the new one."""
    aside = path.with_name(path.name + ".new")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)
