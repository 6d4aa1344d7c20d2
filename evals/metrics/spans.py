"""Entities by their positions in a text, and whether a file counts the last character or the one after it as the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from data.tables import DataError

End = Literal["included", "not included"]
_ENDS: tuple[End, End] = ("not included", "included")


@dataclass(frozen=True)
class Span:
    """An entity as a file gives it."""

    kind: str
    start: int
    """Index of the first character, from 0."""
    end: int
    """Index of the last character or of the one after it: the file's `End` says which."""
    told: str | None
    """The entity's text, where the file repeats it."""

    def between(self, text: str, end: End) -> str:
        """What `text` has between the positions; empty where they are not in it."""
        stop = self.end + (end == "included")
        return text[self.start : stop] if 0 <= self.start < stop <= len(text) else ""


def end_of(path: str, spans: Sequence[tuple[str, Span]]) -> End:
    """How a file counts ends: as most of its entities say.

    Entities told with their text say it by being what stands between the positions. Of the others, one says it whose
    positions fit in the text in one way only: an end equal to its start is included, one equal to the text's length is
    not. Where none says anything, as CCKS counts: not included.

    Args:
        spans: each with the text that it is in.

    Raises:
        DataError: positions do not fit: less than half of the entities are what stands between them; or, of entities without
            their texts, none is in its text, or they contradict one another.
    """
    told = [(text, span) for text, span in spans if span.told is not None]
    if told:
        fits = {end: sum(span.between(text, end) == span.told for text, span in told) for end in _ENDS}
        best = max(_ENDS, key=lambda end: fits[end])
        if 2 * fits[best] < len(told):
            text, span = next((text, span) for text, span in told if span.between(text, best) != span.told)
            raise DataError(
                f"{path}: of {len(told)} entities only {fits[best]} stand where their positions say (e.g. {span.told!r} at "
                f"{span.start} to {span.end} of {text[:20]!r}); count characters from 0, the end included or not"
            )
        return best
    only = {
        end: sum(bool(span.between(text, end)) and not span.between(text, other) for text, span in spans)
        for end, other in zip(_ENDS, reversed(_ENDS), strict=True)
    }
    if spans and not any(span.between(text, end) for text, span in spans for end in _ENDS):
        text, span = spans[0]
        raise DataError(
            f"{path}: none of its {len(spans)} entities stands in its text (e.g. {span.start} to {span.end} of "
            f"{text[:20]!r}); count characters from 0, the end included or not"
        )
    if all(only.values()):
        raise DataError(
            f"{path}: {only['included']} entities include their end and {only['not included']} do not; count all alike"
        )
    return "included" if only["included"] else "not included"
