"""Errors for a loss or gradient that is not finite; they identify the role, the step, and the affected rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from configs.errors import RunError


class NotFiniteError(RunError):
    """The loss or gradient of an optimizer step is not finite; raised on all ranks.

    Attributes:
        what: what was not finite.
        step: number of the optimizer step, from 1.
        micro_batches: the indices of the offending micro-batches of each rank; all indices if the gradient is not
            finite.
        update: index of the optimizer step among those of one call; set by the caller.
    """

    update: int = 0

    def __init__(self, what: str, step: int, micro_batches: list[list[int]]) -> None:
        super().__init__(what, step, micro_batches)  # pickle recreates the error from these
        self.what, self.step, self.micro_batches = what, step, micro_batches

    def __str__(self) -> str:
        return f"{self.what} at optimizer step {self.step}"


class DivergedError(RunError):
    """A role's loss or gradient is not finite.

    Attributes:
        who: the role.
        problem: what was not finite, and at which optimizer step.
        rows: the affected rows, with all columns.
    """

    def __init__(self, who: str, problem: str, rows: pa.Table) -> None:
        super().__init__(who, problem, rows)
        self.who, self.problem, self.rows = who, problem, rows

    def __str__(self) -> str:
        bad = not_finite_columns(self.rows)
        advice = (
            f"{', '.join(bad)} of its rows {'is' if len(bad) == 1 else 'are'} not finite: check what computed them"
            if bad
            else "its rows are finite: lower its optimizer.lr or optimizer.max_grad_norm, under another run name"
        )
        return f"{self.who}: {self.problem}; {advice}; checkpoints are kept"


def not_finite_columns(table: pa.Table) -> list[str]:
    """Returns the names of the columns of floats, or of lists of floats, that contain a NaN or an infinity."""
    found = []
    for name in table.column_names:
        values: Any = table.column(name).combine_chunks()
        while pa.types.is_list(values.type):
            values = values.flatten()
        if pa.types.is_floating(values.type) and not np.isfinite(values.to_numpy(zero_copy_only=False)).all():
            found.append(name)
    return found
