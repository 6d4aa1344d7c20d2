"""Files that survive a crash and a power cut: written aside, synced, renamed; and one line about a disk that refuses."""

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

_AGAIN = "then the same command goes on from the newest good state"
_TODO = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), f"make room, {_AGAIN}"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), f"make its folder writable, {_AGAIN}"),
}
_SEAL = b"# SHA-256 of the lines above: "
_CHECKSUM = "sha256"  # a key of JSON files: of the rest


class DiskError(RunError):
    """A file that cannot be written; the message names it, what is wrong and what to do."""

    reason = ""
    """What is wrong, in the operating system's words."""


@contextmanager
def writing(path: Path, *, named: bool = True) -> Iterator[None]:
    """A context in which an OSError becomes a DiskError about `path`, or about the file that the error has `named`.

    Raises DiskError in place of the system's error.
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
    """Makes `content` the file `path` at once: a reader, or a crash, meets the old file or the new one.

    When it has returned, a power cut cannot undo it, unless it was not `synced`.

    Raises:
        DiskError: no such folder, a full disk, or one that refuses; an old file is then still there.
    """
    with writing(path, named=False):
        handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                if synced:
                    os.fsync(file.fileno())
            os.chmod(aside, 0o644)  # mkstemp gives 0600, which would keep a shared run folder's other readers out
            os.replace(aside, path)
        except BaseException:
            os.unlink(aside)
            raise
        if synced:
            sync(path.parent)


def make_folder(path: Path) -> None:
    """Makes a folder and those around it, unless they are there. Raises DiskError."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def sync(path: Path) -> None:
    """Has a file's content, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        # Reads into one small buffer: large ones of many short-lived threads would stay in malloc's arenas.
        return hashlib.file_digest(file, "sha256").hexdigest()


def with_seal(text: str) -> bytes:
    """`text` in UTF-8 with its SHA-256 in a last line, which is a comment where `#` begins one."""
    content = text.encode()
    return content + _SEAL + hashlib.sha256(content).hexdigest().encode() + b"\n"


def broken_seal(content: bytes, *, required: bool = True) -> str | None:
    """What is wrong with text that `with_seal` made, as a message's words; None if nothing is.

    Without a last line of that kind it is cut off, or written by other means, which is right where none is `required`.
    """
    text, seal, digest = content.rpartition(_SEAL)
    if not seal:
        return "cut off (its last line, a SHA-256, is missing)" if required else None
    if digest != hashlib.sha256(text).hexdigest().encode() + b"\n":
        return "damaged or changed (its last line is not the SHA-256 of the others)"
    return None


def json_with_checksum(values: Mapping[str, Any]) -> bytes:
    """`values` as JSON with their own SHA-256 under the key `sha256`, for `checked_json`."""
    return _json({**values, _CHECKSUM: hashlib.sha256(_json(values)).hexdigest()})


def checked_json(content: bytes) -> dict[str, Any] | None:
    """What `json_with_checksum` wrote; None if it is damaged. Without a checksum any JSON object counts as whole."""
    try:
        values = dict(json.loads(content))
    except (ValueError, TypeError):
        return None
    stored = values.pop(_CHECKSUM, None)
    return values if stored in (None, hashlib.sha256(_json(values)).hexdigest()) else None


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, ensure_ascii=False, indent=1) + "\n").encode()
