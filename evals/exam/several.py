"""Which lettered options a written answer to a question with several right ones chooses."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_RUN = r"[{letters}](?:[\s,;、，；/和与及]*[{letters}])*"
_FIRST = r"[\s\"'“(【\[]*({run})(?=$|[\s.。,:;)】\]”\"']|选项)"
_STATED = r"(?:答案|选项|应选|故选|选择|我选|选|为|是)[^A-Za-z\n]{{0,4}}({run})(?![A-Za-z0-9])"
_LINE = r"^\s*([{letters}])\s*[.、:)．]\s*(.+)$"


def chosen_options(answer: str, letters: str, options: Sequence[str]) -> frozenset[int]:
    """The indices of the options that a text chooses; empty if it states none, or different ones.

    In this order: options listed with letter and text, a line each; the letters that the text begins with; those that it
    states (`答案是ABD`, `故选A、C`). Nothing is guessed.
    """
    text = unicodedata.normalize("NFKC", answer).strip()
    run = _RUN.format(letters=letters)
    lines = [re.match(_LINE.format(letters=letters), line) for line in text.split("\n")]
    listed = [letters.index(line[1]) for line in lines if line and _same(line[2], options[letters.index(line[1])])]
    if listed and lines[0]:
        return frozenset(listed)
    first = re.match(_FIRST.format(run=run), text)
    if first:
        return _indices(first[1], letters)
    stated = {_indices(found, letters) for found in re.findall(_STATED.format(run=run), text)}
    return stated.pop() if len(stated) == 1 else frozenset()


def _same(said: str, option: str) -> bool:
    return said.strip().rstrip("。.") == unicodedata.normalize("NFKC", option).strip().rstrip("。.")


def _indices(run: str, letters: str) -> frozenset[int]:
    return frozenset(letters.index(letter) for letter in run if letter in letters)
