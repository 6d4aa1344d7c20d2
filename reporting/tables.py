"""Tables of reports; the macro `grid` in charts.html.jinja draws them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        published: whether the values are published ones, which the page marks as such.
    """

    name: str
    cells: list[str]
    published: bool = False


@dataclass(frozen=True)
class Table:
    """A table with a heading per row and per column, and notes below it."""

    title: str
    columns: list[str]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
