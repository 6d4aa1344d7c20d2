"""Checkpoints on a shared file system: written to a temporary folder, with checksums, then committed by one rename.

checkpoints/step-00000020/SHA256SUMS    checksums of all files, written last; `sha256sum -c SHA256SUMS` checks them too
                          state.json    state of the driver
                          policy/...    files of each role
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from configs.errors import RunError
from storage.durable import checksum_fault, replace_file, sha256, sync, with_checksum, writing

logger = logging.getLogger(__name__)

MANIFEST = "SHA256SUMS"
STATE = "state.json"
_NAME = re.compile(r"step-(\d{8})")
_THREADS = 8  # threads that read and hash files concurrently


class DamagedCheckpoint(RunError):
    """A checkpoint's files are not as they were written; the message names the file."""


def is_checkpoint(folder: Path) -> bool:
    """Returns whether a folder has the name of a committed checkpoint."""
    return _NAME.fullmatch(folder.name) is not None


class CheckpointStore:
    """The `checkpoints/` folder of one run. One process commits; all ranks may write to the temporary folder."""

    def __init__(self, root: Path, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"a run keeps at least one checkpoint, not {keep}")
        self.root = root
        self.keep = keep

    def aside(self, step: int) -> Path:
        """Returns the temporary folder that holds step `step` until it is committed."""
        return self.root / f"aside-{step:08d}"

    def begin(self, step: int) -> Path:
        """Creates and returns an empty `aside(step)`, after removing leftovers of interrupted writers."""
        folder = self.aside(step)
        with writing(folder):
            for left in [*self.root.glob("aside-*"), *self.root.glob("discarded-*")]:
                shutil.rmtree(left)
            folder.mkdir(parents=True)
        return folder

    def commit(self, step: int, state: dict[str, Any], digests: Mapping[str, str] | None = None) -> Path:
        """Commits `aside(step)` as the checkpoint of `step`, then removes the oldest beyond `keep`.

        A crash before `commit` returns leaves the earlier checkpoints; a crash afterwards leaves this one or a later
        one.

        Args:
            step: the step to commit.
            state: state of the driver, as JSON values.
            digests: SHA-256 of each file that its writer has hashed and synced, by path below the folder; all other
                files are hashed and synced here.

        Raises:
            DiskError: a file cannot be written.
            RunError: a file of `digests` does not exist.
        """
        folder, final = self.aside(step), self._folder(step)
        with writing(folder):
            replace_file(folder / STATE, json.dumps(state).encode())
            replace_file(folder / MANIFEST, with_checksum(_manifest(folder, digests or {})))
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
        """Returns the steps of the committed checkpoints, oldest first."""
        if not self.root.is_dir():
            return []
        return sorted(int(m[1]) for path in self.root.iterdir() if (m := _NAME.fullmatch(path.name)))

    def good(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yields the folder and state of every undamaged checkpoint, newest first.

        Verifies all files of a checkpoint before yielding it. Skips damaged checkpoints and logs the damaged file.
        """
        for step in reversed(self.steps()):
            folder = self._folder(step)
            try:
                verify(folder)
            except DamagedCheckpoint as error:
                logger.warning("%s; skipping %s", error, folder.name)
                continue
            yield folder, json.loads((folder / STATE).read_text(encoding="utf-8"))

    def latest(self) -> tuple[Path, dict[str, Any]] | None:
        """Returns the folder and state of the newest undamaged checkpoint, or None if there is none."""
        return next(self.good(), None)

    def _folder(self, step: int) -> Path:
        return self.root / f"step-{step:08d}"

    def _discard(self, folder: Path) -> None:
        """Removes a checkpoint. A rename first ensures that a crash leaves no partial checkpoint under its name."""
        aside = folder.with_name(f"discarded-{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        shutil.rmtree(aside)


def verify(folder: Path) -> None:
    """Verifies the checksum of every file of a checkpoint.

    Call it before DeepSpeed loads the checkpoint: its files are pickles, which can execute code when they are loaded.

    Raises:
        DamagedCheckpoint: a file is missing, truncated, changed, or not listed in the checksums; the message names
            the first such file.
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
    """Returns what is wrong with a file, as text for a message; None if its SHA-256 is `digest`."""
    try:
        return None if sha256(path) == digest else "damaged (its SHA-256 is another)"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"not readable ({error.strerror})"


def _manifest(folder: Path, digests: Mapping[str, str]) -> str:
    """Returns the manifest: one line per file, in the format of sha256sum.

    Files that are not in `digests` are hashed and synced here.
    """
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {MANIFEST}
    for name in sorted(set(digests) - names):
        raise RunError(f"{folder / name}: written, but not here: all machines must share one runs folder")
    for name in sorted(names - set(digests)):
        sync(folder / name)
    return "".join(f"{digests.get(name) or sha256(folder / name)}  {name}\n" for name in sorted(names))


def _read_manifest(path: Path) -> dict[str, str]:
    """Returns the SHA-256 of each file, by path below the checkpoint's folder.

    Raises:
        DamagedCheckpoint: the manifest cannot be read or fails its own checksum.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamagedCheckpoint(f"{path}: {_wrong(path, '')}") from error
    if reason := checksum_fault(content):
        raise DamagedCheckpoint(f"{path}: {reason}")
    lines = content.decode().splitlines()[:-1]
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
