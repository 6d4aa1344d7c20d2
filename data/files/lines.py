"""Reads files as decompressed bytes, and as lines in a known encoding; unreadable content is reported, not guessed."""

from __future__ import annotations

import codecs
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

MIB: Final = 1024 * 1024
CHUNK: Final = MIB
_PACKED: Final = CHUNK // 8  # bytes of a gzip file that are decompressed at a time
ENCODINGS: Final = ("utf-8", "gb18030")
_MOST_NULLS: Final = 0.002  # maximum share of null bytes in a text: damage writes some, UTF-16 has more
_FEW_NULLS: Final = 8  # up to this many null bytes are treated as damage to single lines, however short the text
_BYTE_ORDER_MARKS: Final = (codecs.BOM_UTF8, "\ufeff".encode("gb18030"))
_NOT_ASCII: Final = re.compile(rb"[\x80-\xff]")
_OTHER_MARKS: Final = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Unreadable(Exception):
    """A file, or the rest of it, cannot be read; the message is the reason."""


def chunks(path: Path, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """Yields the bytes from `start` to `end` of a file's content, at most `CHUNK` at a time, up to any damage.

    Content is decompressed according to the file's suffix: .gz, .zst, or any other, which means no compression.

    Raises:
        Unreadable: the file cannot be opened, or its compressed data is truncated or damaged.
    """
    unpacked = {".gz": _gunzipped, ".zst": _unzstd}.get(path.suffix, _plain)
    try:
        yield from unpacked(path, start, end)
    except EOFError as error:
        raise Unreadable("the compressed data is truncated") from error
    except (OSError, zlib.error, pa.ArrowException) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Unreadable(f"cannot be read ({reason})") from error


def _plain(path: Path, start: int, end: int | None) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(CHUNK if end is None else min(CHUNK, end - start)):
            start += len(chunk)
            yield chunk


def _gunzipped(path: Path, start: int, end: int | None) -> Iterator[bytes]:
    """Yields the content of all members of a gzip file.

    Unlike the gzip module, this also yields what was decompressed before damage.
    """
    assert (start, end) == (0, None), "compressed files are read whole"
    member: Any = None
    with path.open("rb") as file:
        while packed := file.read(_PACKED):
            while packed := packed if member else packed.lstrip(b"\0"):  # members may be padded with zeros
                member = member or zlib.decompressobj(wbits=31)
                before = member.copy()
                try:
                    chunk = member.decompress(packed, CHUNK)
                except zlib.error:
                    yield _before_damage(before.decompress(packed[at : at + 1]) for at in range(len(packed)))
                    raise
                yield chunk
                packed = member.unused_data if member.eof else member.unconsumed_tail
                member = None if member.eof else member
    if member:
        raise EOFError


def _unzstd(path: Path, start: int, end: int | None) -> Iterator[bytes]:
    assert (start, end) == (0, None), "compressed files are read whole"
    with pa.input_stream(str(path), compression="zstd") as file:
        try:
            while chunk := file.read(CHUNK):
                start += len(chunk)
                yield chunk
        except (OSError, pa.ArrowException):
            with pa.input_stream(str(path), compression="zstd") as again:
                while start:
                    start -= len(again.read(min(start, CHUNK)))
                yield _before_damage(iter(lambda: again.read(1), b""))
            raise


def _before_damage(parts: Iterator[bytes]) -> bytes:
    """Returns the bytes before the error that ends `parts`.

    `parts` must read one byte at a time, because a read that fails returns nothing.
    """
    found = bytearray()
    with suppress(OSError, zlib.error, pa.ArrowException):
        for part in parts:
            found += part
    return bytes(found)


def detect_encoding(path: Path) -> str:
    """Returns the encoding of a text file, `utf-8` or `gb18030`.

    The first chunk with non-ASCII bytes decides: the encoding is the first of `ENCODINGS` in which the whole chunk is
    valid, else the one in which more bytes of its non-ASCII lines are in valid lines. Lines that are valid in UTF-8
    count four times, because bytes are seldom valid UTF-8 by chance, but any two may be a character in GB18030.

    Raises:
        Unreadable: the file is UTF-16 or UTF-32, or not text at all.
    """
    sample = b""
    with suppress(Unreadable):  # the part before any damage is used; the error is reported when the file is read
        for number, chunk in enumerate(chunks(path)):
            sample = without_mark(chunk) if number == 0 else chunk
            if _NOT_ASCII.search(sample):
                break
    if sample.startswith(_OTHER_MARKS):
        raise Unreadable("is UTF-16 or UTF-32 text; save it as UTF-8")
    if sample.count(b"\0") > max(_FEW_NULLS, len(sample) * _MOST_NULLS):
        raise Unreadable("holds many null bytes, so it is not text; leave it out")
    for name in ENCODINGS:
        if _decodes(sample, name):
            return name
    told = [line for line in sample.split(b"\n") if _NOT_ASCII.search(line)]
    utf8, gb18030 = (sum(len(line) for line in told if _decodes(line, name)) for name in ENCODINGS)
    return "utf-8" if 4 * utf8 > gb18030 else "gb18030"


def without_mark(content: bytes) -> bytes:
    """Returns the beginning of a file without its byte order mark."""
    for mark in _BYTE_ORDER_MARKS:
        content = content.removeprefix(mark)
    return content


def _decodes(text: bytes, encoding: str) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)().decode(text)  # a character cut at the sample's end is not an error
    except UnicodeDecodeError:
        return False
    return True


def lines(parts: Iterator[bytes], encoding: str, longest: int) -> Iterator[tuple[int, str, str]]:
    """Yields lines as `(number, text, reason)`; numbers are counted from 1, and texts have no line end.

    The reason states why a line was rejected, for example because it has more than `longest` bytes; it is empty for a
    valid one. The text of a rejected line is empty.

    Raises:
        Unreadable: see `chunks`; all complete lines before the damage have been yielded.
    """
    number, kept, size = 1, list[bytes](), 0  # the line that began in an earlier chunk: its kept parts and its bytes
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
    """Decodes the lines of one chunk to `(text, reason)`, as in `lines`: at once if all are valid, else one by one."""
    if len(whole) <= longest and b"\0" not in whole:
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
    if b"\0" in line:
        return "", f"byte {line.index(0)} of the line is null, so it is not text"
    try:
        return line.decode(encoding).removeprefix("\ufeff").rstrip("\r"), ""
    except UnicodeDecodeError as error:
        name = {"utf-8": "UTF-8", "gb18030": "GB18030"}[encoding]
        return "", f"byte {error.start} of the line is not valid {name}, the encoding of the file"


def line_starts(path: Path, step: int) -> list[int]:
    """Returns offsets, in bytes, that split an uncompressed file at line starts into ranges of about `step` bytes.

    The first offset is 0. A range with a line of more than `step` bytes is longer.
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
