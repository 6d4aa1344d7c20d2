"""Entity spans in a text, and detection of whether a file's end positions are inclusive or exclusive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from data.tables import DataError

End = Literal["included", "not included"]
_ENDS: tuple[End, End] = ("not included", "included")


@dataclass(frozen=True)
class Span:
    """An entity as specified by a file."""

    kind: str
    start: int
    """Index of the first character, from 0."""
    end: int
    """Index of the last character or of the one after it, according to the file's `End`."""
    stated: str | None
    """The entity's text, if the file contains it."""

    def between(self, text: str, end: End) -> str:
        """Returns the part of `text` at this span; empty if the span is not within `text`."""
        stop = self.end + (end == "included")
        return text[self.start : stop] if 0 <= self.start < stop <= len(text) else ""


def end_of(path: str, spans: Sequence[tuple[str, Span]]) -> End:
    """Returns whether a file's end positions are included in the entities.

    If the file contains entity texts, the convention under which more of them match their positions wins. Otherwise an
    entity is decisive if its positions are valid under one convention only: an end equal to the start is included, an
    end equal to the text's length is not. Without decisive entities, ends are not included, as in CCKS.

    Args:
        path: the file, for error messages.
        spans: the entities, each as (text that contains it, span).

    Raises:
        DataError: fewer than half of the entity texts match their positions; or, without entity texts, no entity lies
            in its text, or decisive entities contradict each other.
    """
    stated = [(text, span) for text, span in spans if span.stated is not None]
    if stated:
        fits = {end: sum(span.between(text, end) == span.stated for text, span in stated) for end in _ENDS}
        best = max(_ENDS, key=lambda end: fits[end])
        if 2 * fits[best] < len(stated):
            text, span = next((text, span) for text, span in stated if span.between(text, best) != span.stated)
            raise DataError(
                f"{path}: of {len(stated)} entities only {fits[best]} are at their positions (e.g. {span.stated!r} at "
                f"{span.start} to {span.end} of {text[:20]!r}); count characters from 0, with or without the end position included"
            )
        return best
    only = {
        end: sum(bool(span.between(text, end)) and not span.between(text, other) for text, span in spans)
        for end, other in zip(_ENDS, reversed(_ENDS), strict=True)
    }
    if spans and not any(span.between(text, end) for text, span in spans for end in _ENDS):
        text, span = spans[0]
        raise DataError(
            f"{path}: none of its {len(spans)} entities is in its text (e.g. {span.start} to {span.end} of "
            f"{text[:20]!r}); count characters from 0, with or without the end position included"
        )
    if all(only.values()):
        raise DataError(
            f"{path}: {only['included']} entities include their end and {only['not included']} do not; count all alike"
        )
    return "included" if only["included"] else "not included"
