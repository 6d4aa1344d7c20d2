"""Training that brought a figure which is not finite: what it was, whose, and which rows it came from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from configs.errors import RunError


class NotFiniteError(RunError):
    """An optimizer step brought a figure that is not finite; raised on every rank alike.

    `micro_batches[rank]` are the indices of those that brought it: all of them where the gradient did. `update` is the
    index of the step among those asked for together.
    """

    update: int = 0

    def __init__(self, what: str, step: int, micro_batches: list[list[int]]) -> None:
        super().__init__(what, step, micro_batches)  # a pickle is made of these
        self.what, self.step, self.micro_batches = what, step, micro_batches

    def __str__(self) -> str:
        return f"{self.what} at optimizer step {self.step}"


class DivergedError(RunError):
    """The same with the name of whose training it was, and the rows, with all their columns, that it came from."""

    def __init__(self, who: str, said: str, rows: pa.Table) -> None:
        super().__init__(who, said, rows)
        self.who, self.said, self.rows = who, said, rows

    def __str__(self) -> str:
        bad = not_finite_columns(self.rows)
        advice = (
            f"{', '.join(bad)} of its rows {'is' if len(bad) == 1 else 'are'} not finite: look at what made them"
            if bad
            else "its rows are finite: lower its optimizer.lr or optimizer.max_grad_norm, under another run name"
        )
        return f"{self.who}: {self.said}; {advice}; checkpoints are kept"


def not_finite_columns(table: pa.Table) -> list[str]:
    """Names of the columns of floats, or lists of floats, that hold a NaN or an infinity."""
    found = []
    for name in table.column_names:
        values: Any = table.column(name).combine_chunks()
        while pa.types.is_list(values.type):
            values = values.flatten()
        if pa.types.is_floating(values.type) and not np.isfinite(values.to_numpy(zero_copy_only=False)).all():
            found.append(name)
    return found
