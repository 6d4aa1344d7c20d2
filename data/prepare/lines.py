"""Bytes of a file, decompressed, as lines in a known encoding; what cannot be read is said, not guessed."""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from data.prepare.options import MIB

CHUNK: Final = 1024 * 1024
ENCODINGS: Final = ("utf-8", "gb18030")
_NOT_ASCII: Final = re.compile(rb"[\x80-\xff]")
_OTHER_MARKS: Final = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Unreadable(Exception):
    """A file, or what is left of it, cannot be read; the text is the reason."""


def open_plain(path: Path) -> Any:
    """A binary stream of a file's content, decompressed by its name's ending: .gz, .zst or none."""
    if path.suffix == ".gz":
        return gzip.open(path)
    if path.suffix == ".zst":
        return pa.input_stream(str(path), compression="zstd")
    return path.open("rb")


def chunks(path: Path, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """The bytes from `start` to `end` of a file's content, `CHUNK` at a time; everything before damage is given.

    Raises:
        Unreadable: the file cannot be opened, or its compressed data is cut off or damaged.
    """
    try:
        with open_plain(path) as file:
            if start:
                file.seek(start)
            while end is None or start < end:
                # One read of what is below: of cut off data, `read` would raise and keep the part before to itself.
                chunk = file.read1(CHUNK if end is None else min(CHUNK, end - start))
                if not chunk:
                    return
                start += len(chunk)
                yield chunk
    except EOFError as error:
        raise Unreadable("the compressed data is cut off; what follows is lost") from error
    except (OSError, zlib.error, pa.ArrowException) as error:
        if path.suffix == ".zst":
            yield _before_damage(path, start)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Unreadable(f"cannot be read ({reason}); what follows is lost") from error


def _before_damage(path: Path, start: int) -> bytes:
    """What lies between `start` and the damage: of a read that fails, Arrow gives nothing; so, byte by byte."""
    found = bytearray()
    with suppress(OSError, pa.ArrowException), open_plain(path) as file:
        while start:
            start -= len(file.read(min(start, CHUNK)))
        while byte := file.read(1):
            found += byte
    return bytes(found)


def detect_encoding(path: Path) -> str:
    """`utf-8` or `gb18030`: the first in which the first stretch with such characters is right, else has fewer wrong lines.

    Raises:
        Unreadable: UTF-16 or UTF-32, or not text at all.
    """
    sample = b""
    with suppress(Unreadable):  # of damaged data the part before the damage is used; reading it says what is wrong
        for number, chunk in enumerate(chunks(path)):
            sample = chunk.removeprefix(codecs.BOM_UTF8) if number == 0 else chunk
            if _NOT_ASCII.search(sample):
                break
    if sample.startswith(_OTHER_MARKS):
        raise Unreadable("is UTF-16 or UTF-32 text; save it as UTF-8")
    if b"\0" in sample:
        raise Unreadable("holds null bytes, so it is no text; leave it out")
    for name in ENCODINGS:
        if _decodes(sample, name):
            return name
    wrong = {name: sum(not _decodes(line, name) for line in sample.split(b"\n")) for name in ENCODINGS}
    return min(ENCODINGS, key=lambda name: wrong[name])


def _decodes(text: bytes, encoding: str) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)().decode(text)  # a character that the sample cuts through is none wrong
    except UnicodeDecodeError:
        return False
    return True


def lines(parts: Iterator[bytes], encoding: str, longest: int) -> Iterator[tuple[int, str, str]]:
    """Lines as `(number from 1, text without its end, why it is bad)`; one of more than `longest` bytes is passed over.

    Raises:
        Unreadable: as `chunks`; all whole lines before have been given.
    """
    number, kept, size = 1, list[bytes](), 0  # of a line that began in an earlier chunk: what is kept, and its bytes
    for chunk in parts:
        first, ended, rest = chunk.partition(b"\n")
        size += len(first)
        kept = [*kept, first] if size <= longest else []
        if not ended:
            continue
        yield number, *_decoded(b"".join(kept), size, encoding, longest)
        whole, some, last = rest.rpartition(b"\n")
        if some:
            for text, bad in _all_decoded(whole, encoding, longest):
                number += 1
                yield number, text, bad
        number, kept, size = number + 1, [last], len(last)
    if size:
        yield number, *_decoded(b"".join(kept), size, encoding, longest)


def _all_decoded(whole: bytes, encoding: str, longest: int) -> Iterable[tuple[str, str]]:
    """Lines of one stretch as `(text, why it is bad)`: decoded together where all are right, else one by one."""
    if len(whole) <= longest:
        try:
            text = whole.decode(encoding)
        except UnicodeDecodeError:
            pass
        else:
            return ((line.removeprefix("\ufeff").rstrip("\r"), "") for line in text.split("\n"))
    return (_decoded(line, len(line), encoding, longest) for line in whole.split(b"\n"))


def _decoded(line: bytes, size: int, encoding: str, longest: int) -> tuple[str, str]:
    if size > longest:
        most, unit = (longest // MIB, "MiB") if longest >= MIB else (longest, "bytes")
        return "", f"the line has more than {most} {unit}"
    try:
        return line.decode(encoding).removeprefix("\ufeff").rstrip("\r"), ""
    except UnicodeDecodeError as error:
        name = {"utf-8": "UTF-8", "gb18030": "GB18030"}[encoding]
        return "", f"byte {error.start} of the line is not {name}, which the file is written in"


def line_starts(path: Path, step: int) -> list[int]:
    """Where to cut an uncompressed file into stretches of about `step` bytes, each beginning with a line.

    Starts at 0; a line longer than a stretch makes its stretch longer.
    """
    size = path.stat().st_size
    starts = [0]
    with path.open("rb") as file:
        while starts[-1] + step < size:
            file.seek(starts[-1] + step)
            while True:
                piece = file.readline(CHUNK)
                if not piece or piece.endswith(b"\n"):
                    break
            if file.tell() >= size:
                break
            starts.append(file.tell())
    return starts
