"""Checkpoints on a shared file system: written aside, with a checksum of every file, then committed by one rename.

checkpoints/step-00000020/SHA256SUMS    every file below, written last; `sha256sum -c SHA256SUMS` checks it too
                          state.json    what the driver keeps beside the weights
                          policy/...    what each role wrote
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from configs.errors import RunError
from storage.durable import broken_seal, replace_file, sha256, sync, with_seal, writing

MANIFEST = "SHA256SUMS"
STATE = "state.json"
_NAME = re.compile(r"step-(\d{8})")
_THREADS = 8  # that read and hash at a time


class DamagedCheckpoint(RunError):
    """A checkpoint that is not what was written; the message names the file."""


class CheckpointStore:
    """The `checkpoints/` folder of one run. One process commits; every rank may write into the folder aside."""

    def __init__(self, root: Path, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"a run keeps at least one checkpoint, not {keep}")
        self.root = root
        self.keep = keep

    def aside(self, step: int) -> Path:
        """The folder to write step `step` into before it is committed. Nothing in it counts yet."""
        return self.root / f"aside-{step:08d}"

    def begin(self, step: int) -> Path:
        """Makes an empty `aside(step)`; what interrupted writers left is removed."""
        folder = self.aside(step)
        with writing(folder):
            for left in [*self.root.glob("aside-*"), *self.root.glob("discarded-*")]:
                shutil.rmtree(left)
            folder.mkdir(parents=True)
        return folder

    def commit(self, step: int, state: dict[str, Any], digests: Mapping[str, str] | None = None) -> Path:
        """Makes `aside(step)` the checkpoint of `step`, with `state` (JSON) beside the weights; then drops the oldest.

        After `commit` has returned, a crash at any moment leaves this checkpoint or a later one; until then, those before.

        Args:
            digests: SHA-256 by path of the files that their writers have hashed and synced; the others are here.

        Raises DiskError, or RunError for a file of `digests` that is not there.
        """
        folder, final = self.aside(step), self._folder(step)
        with writing(folder):
            replace_file(folder / STATE, json.dumps(state).encode())
            replace_file(folder / MANIFEST, with_seal(_manifest(folder, digests or {})))
            for path in folder.rglob("*"):
                if path.is_dir():
                    sync(path)
            sync(folder)
            if final.exists():
                self._discard(final)
            folder.rename(final)
            sync(self.root)
            for old in self.steps()[: -self.keep]:
                self._discard(self._folder(old))
        return final

    def steps(self) -> list[int]:
        """Steps of the committed checkpoints, oldest first."""
        if not self.root.is_dir():
            return []
        return sorted(int(m[1]) for path in self.root.iterdir() if (m := _NAME.fullmatch(path.name)))

    def good(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Folder and state of every checkpoint whose files are all as they were written, newest first.

        Each is read whole when its turn comes; one that is refused is named, with its file, on stdout.
        """
        for step in reversed(self.steps()):
            folder = self._folder(step)
            try:
                verify(folder)
            except DamagedCheckpoint as error:
                print(f"{error}; {folder.name} is not used, but what there was before it", flush=True)
                continue
            yield folder, json.loads((folder / STATE).read_text(encoding="utf-8"))

    def latest(self) -> tuple[Path, dict[str, Any]] | None:
        """Folder and state of the newest good checkpoint, or None when there is none yet."""
        return next(self.good(), None)

    def _folder(self, step: int) -> Path:
        return self.root / f"step-{step:08d}"

    def _discard(self, folder: Path) -> None:
        """Removes a checkpoint; a crash meanwhile leaves no half of one under its name."""
        aside = folder.with_name(f"discarded-{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        shutil.rmtree(aside)


def verify(folder: Path) -> None:
    """Read every file of a checkpoint, before DeepSpeed does: its files are pickles, which run code when they are loaded.

    Raises:
        DamagedCheckpoint: the first file that is missing, truncated, changed, or not one that was written with it.
    """
    expected = _read_manifest(folder / MANIFEST)
    for path in sorted(folder.rglob("*")):
        if not path.is_dir() and str(path.relative_to(folder)) not in {MANIFEST, *expected}:
            raise DamagedCheckpoint(f"{path}: not in {MANIFEST}, so this run did not write it; remove it")
    with ThreadPoolExecutor(_THREADS) as threads:
        found = threads.map(_wrong, [folder / name for name in expected], expected.values())
        for name, wrong in zip(expected, found, strict=True):
            if wrong:
                raise DamagedCheckpoint(f"{folder / name}: {wrong}")


def _wrong(path: Path, digest: str) -> str | None:
    """What is wrong with a file, as a message's words."""
    try:
        return None if sha256(path) == digest else "damaged (its SHA-256 is another)"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"not readable ({error.strerror})"


def _manifest(folder: Path, digests: Mapping[str, str]) -> str:
    """A line a file, as sha256sum writes it; files that are not in `digests` are hashed and synced here."""
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {MANIFEST}
    for name in sorted(set(digests) - names):
        raise RunError(f"{folder / name}: written, but not here: all machines must share one runs folder")
    for name in sorted(names - set(digests)):
        sync(folder / name)
    return "".join(f"{digests.get(name) or sha256(folder / name)}  {name}\n" for name in sorted(names))


def _read_manifest(path: Path) -> dict[str, str]:
    """SHA-256 by file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamagedCheckpoint(f"{path}: {_wrong(path, '')}") from error
    if reason := broken_seal(content):
        raise DamagedCheckpoint(f"{path}: {reason}")
    lines = content.decode().splitlines()[:-1]
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
