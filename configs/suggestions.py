"""Suggestions for misspelled names in error messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str], *, leaf: bool = False) -> str:
    """Returns `; did you mean '...'?` for the closest known word; an empty string if no known word is close.

    Args:
        word: the word that the user gave.
        known: the words that would be valid.
        leaf: whether the known words are paths such as `rollout.batch`, of which only the last part is compared.
    """
    by_name = {path.rsplit(".", 1)[-1] if leaf else path: path for path in known}
    near = difflib.get_close_matches(word, by_name, n=1)
    return f"; did you mean '{by_name[near[0]]}'?" if near else ""
