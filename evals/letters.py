"""Which lettered option a written answer chooses."""

from __future__ import annotations

import re
from collections.abc import Sequence

_FULL_WIDTH = str.maketrans("ＡＢＣＤＥＦＧＨ", "ABCDEFGH")
_DENIED = re.compile(r"(?:不是|不选|排除|并非|而非)\s*[A-H](?:\s*[、,，和或]\s*[A-H])*")
_FIRST = r"[\s\"'“（(【\[]*([{letters}])(?=$|[\s.。,，:：;；)）】\]”\"']|选项)"
_STATED = r"(?:答案|选项|应选|故选|选择|我选|选|为|是)[^A-Za-z\n]{{0,4}}([{letters}])(?![A-Za-z0-9])"
_ALONE = r"(?<!\w)([{letters}])(?!\w)"
_NAMED = r"([{letters}])\s*选?项"
_ANY = r"(?<![A-Za-z0-9])([{letters}])(?![A-Za-z0-9])"


def chosen_option(answer: str, letters: str, options: Sequence[str]) -> int | None:
    """The index of the option that a text chooses, None if it chooses none or more than one.

    In this order: the option that the text is, the letter that it begins with, the one that it states (`答案是B`,
    `故选B`), the only one it names, the only option whose text it contains. Letters that it denies (`不是A`) do not
    count. Nothing is guessed.
    """
    text = _DENIED.sub("", answer.translate(_FULL_WIDTH)).strip()
    if text.rstrip("。.") in options:
        return options.index(text.rstrip("。."))
    first = re.match(_FIRST.format(letters=letters), text)
    if first:
        return letters.index(first[1])
    for letter, option in zip(letters, options, strict=True):
        if text.startswith(letter + option):
            return letters.index(letter)
    stated = set(re.findall(_STATED.format(letters=letters), text))
    if not stated and len(set(re.findall(_ANY.format(letters=letters), text))) < 2:
        stated = set(re.findall(f"{_NAMED}|{_ALONE}".format(letters=letters), text))
        stated = {letter for either in stated for letter in either if letter}
    if stated:
        return letters.index(stated.pop()) if len(stated) == 1 else None
    said = [index for index, option in enumerate(options) if option in text]
    return _outermost(said, options)


def _outermost(said: Sequence[int], options: Sequence[str]) -> int | None:
    """The only option said; one whose text is part of another's said does not count."""
    whole = [i for i in said if not any(i != j and options[i] in options[j] for j in said)]
    return whole[0] if len(whole) == 1 else None
