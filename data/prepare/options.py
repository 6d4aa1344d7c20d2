"""The options of a preparation, which together with the input files determine its output."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import pyarrow as pa

from configs.errors import ConfigError
from data.files.lines import MIB
from data.prepare.privacy.kinds import KINDS
from data.tables import PREFERENCE_WITH_MARGIN, PRETRAIN, PROMPTS, SFT

SCHEMAS: Final[dict[str, pa.Schema]] = {
    "text": PRETRAIN,
    "chat": SFT,
    "preference": PREFERENCE_WITH_MARGIN,
    "prompts": PROMPTS,
}
"""Schema of the output table for each kind, as read by the trainers of that stage."""

STEPS: Final = ("unicode", "markup", "privacy", "length", "repetition", "exact", "near")
"""The cleaning steps that can be switched off, in the order of execution."""

TEXT_UNITS: Final = ("file", "paragraph", "line")
_MIN_CHARS: Final = {"text": 10, "chat": 2, "preference": 2, "prompts": 2}


@dataclass(frozen=True)
class Options:
    """The options of a preparation.

    Attributes:
        kind: a key of `SCHEMAS`.
        columns: `(field, column)` pairs that name the column of a field, for schemas that are not recognized.
        skip: steps that are switched off.
        keep: kinds of personal data that are not masked.
        on_bad: `skip` lists unusable input and continues, `fail` stops at the first unusable record.
        text_unit: the unit of a text file that is one document: the `file`, a `paragraph` between blank lines, or a
            `line`.
        min_chars: rows with fewer characters in total are removed; None is the default of the kind.
        max_chars: longer documents are split, if possible at line ends; longer rows of other kinds are removed.
        max_repeated: rows are removed if more than this share of their windows of ten characters occur earlier in the
            row.
        near_threshold: the minimum share of a long row's tokens that near duplicates have in common.
        near_answers: `same` keeps rows whose answers differ, `any` compares only the questions.
        ngram: number of consecutive tokens (Chinese characters, Latin words, numbers) that count as a match with an
            evaluation item.
        max_row_bytes: maximum size of a line or JSON element, in bytes; longer ones are rejected to bound memory.
        shard_bytes: a shard is closed once it has this much text, in bytes.
        first_option: the number of the first option, 0 or 1, if keys of choice questions are numbers; None rejects
            numbers.
        dialogue_id: the column that has the same value in the adjacent records of one dialogue, if each record is a
            turn or an exchange.
    """

    kind: str
    columns: tuple[tuple[str, str], ...] = ()
    skip: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    on_bad: str = "skip"
    text_unit: str = "file"
    min_chars: int | None = None
    max_chars: int = 100_000
    max_repeated: float = 0.6
    near_threshold: float = 0.97
    near_answers: str = "same"
    ngram: int = 13
    max_row_bytes: int = 64 * MIB
    shard_bytes: int = 256 * MIB
    first_option: int | None = None
    dialogue_id: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in SCHEMAS:
            raise ConfigError(f"--kind {self.kind}: unknown; use {', '.join(SCHEMAS)}")
        for step in self.skip:
            if step not in STEPS:
                raise ConfigError(f"--skip {step}: unknown step; use {', '.join(STEPS)}")
        for kind in self.keep:
            if kind not in KINDS:
                raise ConfigError(f"--keep {kind}: unknown kind; use {', '.join(KINDS)}")
        if self.on_bad not in ("skip", "fail"):
            raise ConfigError(f"--on-bad {self.on_bad}: unknown; use skip or fail")
        if self.near_answers not in ("same", "any"):
            raise ConfigError(f"--near-answers {self.near_answers}: unknown; use same or any")
        if self.text_unit not in TEXT_UNITS:
            raise ConfigError(f"--text-unit {self.text_unit}: unknown; use {', '.join(TEXT_UNITS)}")
        for name in ("max_repeated", "near_threshold"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be above 0 and at most 1")
        for name in ("max_chars", "ngram", "max_row_bytes", "shard_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least 1")
        if self.shortest > self.max_chars:
            raise ConfigError(f"--min-chars {self.shortest}: is more than --max-chars {self.max_chars}")

    @property
    def schema(self) -> pa.Schema:
        return SCHEMAS[self.kind]

    @property
    def shortest(self) -> int:
        return _MIN_CHARS[self.kind] if self.min_chars is None else self.min_chars

    def takes(self, step: str) -> bool:
        """Returns whether a step is enabled."""
        return step not in self.skip

    def as_json(self) -> dict[str, Any]:
        """Returns the options in the form that the manifest stores; equal options give equal JSON."""
        found = asdict(self)
        return {
            **found,
            "columns": [f"{field}={column}" for field, column in self.columns],
            "skip": sorted(self.skip),
            "keep": sorted(self.keep),
            "min_chars": self.shortest,
        }
