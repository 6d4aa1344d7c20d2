"""Durable files: written to a temporary file, fsynced and renamed, so that they survive crashes and power failures.

A write error raises a `DiskError` with a one-line message.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from configs.errors import RunError

_AGAIN = "then run the same command again: it continues from the newest good state"
_TODO = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), f"make room, {_AGAIN}"),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EEXIST), f"name a folder that can be created, {_AGAIN}"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), f"make its folder writable, {_AGAIN}"),
}
_CHECKSUM_LINE = b"# SHA-256 of the lines above: "
_CHECKSUM = "sha256"  # key in JSON files: the SHA-256 of the rest


class DiskError(RunError):
    """A file cannot be written. The message says which file, what is wrong, and what to do."""

    reason = ""
    """The operating system's error message."""


@contextmanager
def writing(path: Path, *, named: bool = True) -> Iterator[None]:
    """Converts an OSError raised inside the block to a DiskError.

    Args:
        path: the file that the message names.
        named: whether the message names the OSError's own file instead, if it has one.

    Raises:
        DiskError: an OSError was raised inside the block.
    """
    try:
        yield
    except OSError as error:
        todo = _TODO.get(error.errno or 0, f"check the disk, {_AGAIN}")
        where = (named and error.filename) or path
        refused = DiskError(f"{where}: cannot be written ({error.strerror or error}); {todo}")
        refused.reason = error.strerror or str(error)
        raise refused from error


def replace_file(path: Path, content: bytes | bytearray | memoryview, *, synced: bool = True) -> None:
    """Replaces the content of the file `path` atomically: readers see the old or the new one, even after a crash.

    Once the call returns, the content survives a power failure, unless `synced` is False.

    Raises:
        DiskError: the folder does not exist, or the disk is full or not writable; an existing file is kept.
    """
    with writing(path, named=False):
        handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                if synced:
                    os.fsync(file.fileno())
            os.chmod(aside, 0o644)  # mkstemp uses mode 0600, which other users of a shared run folder could not read
            os.replace(aside, path)
        except BaseException:
            os.unlink(aside)
            raise
        if synced:
            sync(path.parent)


def write_json(value: Any, path: Path) -> None:
    """Writes JSON to the file `path` atomically, and creates its folder.

    Raises:
        DiskError: the file cannot be written.
        ValueError: a number is infinite or NaN, which JSON cannot represent.
    """
    make_folder(path.parent)
    text = json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False)
    replace_file(path, f"{text}\n".encode())


def make_folder(path: Path) -> None:
    """Creates a folder and its parents if they do not exist.

    Raises:
        DiskError: the folder cannot be created.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def sync(path: Path) -> None:
    """Flushes a file's content, or a folder's entries, to the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        # `file_digest` reads into one small buffer; large buffers of many short-lived threads would stay in malloc's
        # arenas.
        return hashlib.file_digest(file, "sha256").hexdigest()


def with_checksum(text: str) -> bytes:
    """Returns `text` in UTF-8, followed by a line with its SHA-256 that begins with `#`, as comments do in YAML."""
    content = text.encode()
    return content + _CHECKSUM_LINE + hashlib.sha256(content).hexdigest().encode() + b"\n"


def checksum_fault(content: bytes, *, required: bool = True) -> str | None:
    """Returns what is wrong with content produced by `with_checksum`, for an error message; None if it is intact.

    Content without a checksum line is truncated or was written by other means. This is an error only if `required`.
    """
    text, seal, digest = content.rpartition(_CHECKSUM_LINE)
    if not seal:
        return "truncated (its last line, a SHA-256, is missing)" if required else None
    if digest != hashlib.sha256(text).hexdigest().encode() + b"\n":
        return "damaged or changed (its last line is not the SHA-256 of the lines before it)"
    return None


def json_with_checksum(values: Mapping[str, Any]) -> bytes:
    """Returns `values` as JSON with their own SHA-256 under the key `sha256`, which `checked_json` verifies."""
    return _json({**values, _CHECKSUM: hashlib.sha256(_json(values)).hexdigest()})


def checked_json(content: bytes) -> dict[str, Any] | None:
    """Returns the values that `json_with_checksum` wrote; None if they are damaged.

    A JSON object without a checksum is accepted.
    """
    try:
        values = dict(json.loads(content))
    except (ValueError, TypeError):
        return None
    stored = values.pop(_CHECKSUM, None)
    return values if stored in (None, hashlib.sha256(_json(values)).hexdigest()) else None


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, ensure_ascii=False, indent=1) + "\n").encode()
