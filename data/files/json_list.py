"""Reads the elements of a JSON list one at a time, so that memory use depends on the largest element only."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from data.files.json_text import TOO_DEEP, unusable, with_keys_once
from data.files.lines import CHUNK, Unreadable, chunks, without_mark

_DECODER: Final = json.JSONDecoder(object_pairs_hook=with_keys_once)
_BETWEEN: Final = re.compile(r"[\s,]*")
_NEXT: Final = re.compile(r"[}\]\"\w]\s*,\s*(?=\{)")
_WIDEST: Final = 4096  # maximum number of characters between two elements
_UNDECODED: Final = re.compile("[\udc80-\udcff]")


def begins_list(path: str) -> bool:
    """Returns whether the first character of a file, white space aside, opens a JSON list."""
    try:
        for chunk in chunks(Path(path)):
            text = without_mark(chunk).lstrip()
            if text:
                return text.startswith(b"[")
    except Unreadable:  # the error is reported when the file is read
        return False
    return False


def elements(path: str, encoding: str, longest: int) -> Iterator[tuple[int, Any, str]]:
    """Yields the elements of the list in a file as `(line, value, reason)`.

    The reason states why an element was rejected; it is empty for a valid one. The value of a rejected element is None.
    After an element that is not JSON, reading continues at the next object that has a key in common with the list's
    first object.

    Args:
        path: the file.
        encoding: the file's encoding.
        longest: maximum length of an element, in characters.

    Raises:
        Unreadable: the file is damaged; elements before the damage have been yielded.
    """
    text = _Text(path, encoding)
    text.skip(re.compile(r"\s*\[?"))
    known: set[str] = set()
    while True:
        text.skip(_BETWEEN)
        if not text.more():
            yield text.line, None, "the list is truncated: its closing bracket is missing"
            return
        if text.at("]"):
            text.skip(re.compile(r"\]\s*"))
            if text.more():
                yield text.line, None, "the text after the list's closing bracket was not read"
            return
        line = text.line
        value, bad = text.element(longest)
        if isinstance(value, dict):
            known = known or set(value)
        yield line, None if bad else value, bad
        if bad and value is None and not text.find_next(known):
            return


class _Text:
    """A window over the file's text: reading appends to its end, and consumed text is dropped."""

    def __init__(self, path: str, encoding: str) -> None:
        self._parts = chunks(Path(path))
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")
        self._ended = False
        self._damage: Unreadable | None = None
        self._text, self._place = "", 0
        self.line = 1
        self._grow()
        self._text = self._text.removeprefix("\ufeff")

    def _grow(self) -> bool:
        """Reads more text, at least doubling the window, so that even a long element is parsed only a few times."""
        wanted = max(CHUNK, len(self._text) - self._place)
        new: list[str] = []
        while not self._ended and sum(map(len, new)) < wanted:
            try:
                chunk = next(self._parts, b"")
            except Unreadable as error:
                chunk, self._damage = b"", error
            self._ended = not chunk
            new.append(self._decoder.decode(chunk, final=self._ended))
        self._text, self._place = self._text[self._place :] + "".join(new), 0
        return any(new)

    def more(self) -> bool:
        """Returns whether any text is left.

        Raises:
            Unreadable: the file is damaged, and its readable part has been consumed.
        """
        while self._place == len(self._text):
            if not self._grow():
                if self._damage:
                    raise self._damage
                return False
        return True

    def at(self, character: str) -> bool:
        return self._text.startswith(character, self._place)

    def skip(self, pattern: re.Pattern[str]) -> None:
        """Skips the text that matches `pattern`."""
        while True:
            fits = pattern.match(self._text, self._place)
            self._pass(fits.end() if fits else self._place)
            if self._place < len(self._text) or not self._grow():
                return

    def element(self, longest: int) -> tuple[Any, str]:
        """Returns the value at the current position, and why it cannot be used.

        The position moves past the value. If no value can be parsed, None is returned for it and the position does not
        move.
        """
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._place)
            except RecursionError:
                return None, TOO_DEEP
            except ValueError as error:
                position = error.pos if isinstance(error, json.JSONDecodeError) else self._place
                reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                if len(self._text) - self._place > longest:
                    return None, f"no JSON value ends within {longest:,} characters"
                # Only an error close to the end, or inside an unterminated string, can be resolved by reading more.
                cut = position > len(self._text) - 16 or reason.startswith("Unterminated string")
                if cut and self._grow():
                    continue
                if self._damage:
                    raise self._damage from error
                return None, f"not JSON: {reason}"
            if end == len(self._text) and self._grow():
                continue  # a number may continue
            if _UNDECODED.search(self._text, self._place, end):
                bad = "contains bytes that are invalid in the file's encoding"
            else:
                bad = unusable(value, self._text[self._place : end])
            self._pass(end)
            return value, bad

    def find_next(self, known: set[str]) -> bool:
        """Moves to the start of the next element after an invalid one; returns False if there is none."""
        while True:
            fits = _NEXT.search(self._text, self._place)
            if fits is None:
                self._pass(max(self._place, len(self._text) - _WIDEST))
                if self._grow():
                    continue
                return False
            self._pass(fits.end())
            try:
                value, _ = _DECODER.raw_decode(self._text, self._place)
            except (ValueError, RecursionError):
                if len(self._text) - self._place < CHUNK and self._grow():
                    value, _ = self._peek()
                else:
                    continue
            if isinstance(value, dict) and (not known or known & set(value)):
                return True

    def _peek(self) -> tuple[Any, int]:
        try:
            return _DECODER.raw_decode(self._text, self._place)
        except (ValueError, RecursionError):
            return None, self._place

    def _pass(self, place: int) -> None:
        self.line += self._text.count("\n", self._place, place)
        self._place = place
