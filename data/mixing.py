"""The order of the rows of a training table, from one source or a mix of several.

The order is a pure function of its arguments, so that training can be resumed at any step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from data.tables import DataError


@dataclass(frozen=True)
class Order:
    """The order of N rows, of which the first `sources[0]` belong to the first source, and so on.

    An epoch has N rows. Without `weights`, it contains every row once, in a seeded order. With weights, each source
    contributes its share of the N rows, whatever its size: its rows are drawn in repeated passes over the source, each
    in a seeded order, and an epoch continues where the previous one stopped. Within an epoch, the rows of all sources
    are shuffled together.

    Attributes:
        sources: number of rows of each source.
        seed: determines every order.
        weights: relative weight of each source; need not sum to 1.
    """

    sources: tuple[int, ...]
    seed: int
    weights: tuple[float, ...] | None = None

    @property
    def rows(self) -> int:
        """N, the number of rows."""
        return sum(self.sources)

    @property
    def shares(self) -> tuple[int, ...]:
        """Number of rows of each source in an epoch; they sum to N, rounded by the largest-remainder method.

        Raises:
            DataError: a weight is so small that its source contributes no row.
        """
        if self.weights is None:
            return self.sources
        wanted = np.array(self.weights) / sum(self.weights) * self.rows
        counts = np.floor(wanted).astype(int)
        counts[np.argsort(counts - wanted, kind="stable")[: self.rows - counts.sum()]] += 1
        if not counts.all():
            least = int(counts.argmin())
            raise DataError(
                f"data.weights: {self.weights[least]:g} for entry {least} of data.train gives it none of the {self.rows} rows "
                f"of an epoch; raise it or leave the entry out"
            )
        return tuple(counts.tolist())

    @property
    def passes(self) -> tuple[float, ...]:
        """Number of passes over each source in an epoch."""
        return tuple(share / size for share, size in zip(self.shares, self.sources, strict=True))

    def of_step(self, step: int, batch_size: int) -> list[int]:
        """Returns the row numbers of the `batch_size` rows of optimizer step `step`, counted from 0.

        Each step takes the next `batch_size` rows. Epochs follow one another without a gap, so a step may end one
        epoch and begin the next.
        """
        first, last = step * batch_size, (step + 1) * batch_size
        taken: list[int] = []
        for epoch in range(first // self.rows, -(-last // self.rows)):
            rows = _epoch(self, epoch)
            taken += rows[max(0, first - epoch * self.rows) : last - epoch * self.rows].tolist()
        return taken


@lru_cache(maxsize=2)
def _epoch(order: Order, epoch: int) -> NDArray[np.int64]:
    """Returns the row numbers of an epoch, (N,); cached, because permuting many rows would delay every step."""
    if order.weights is None:
        members = np.arange(order.rows)
    else:
        starts = np.cumsum([0, *order.sources])
        members = np.concatenate(
            [
                starts[source] + _passes(order, source, epoch * share, (epoch + 1) * share)
                for source, share in enumerate(order.shares)
            ]
        )
    return members[np.random.default_rng((order.seed, 1, epoch)).permutation(order.rows)]


def _passes(order: Order, source: int, first: int, last: int) -> NDArray[np.int64]:
    """Returns draws `first` to `last` - 1 of a source as row numbers within the source, (last - first,).

    A source's draws are its rows in one seeded permutation after another.
    """
    size = order.sources[source]
    passes = range(first // size, -(-last // size))
    drawn = [np.random.default_rng((order.seed, 2, source, one)).permutation(size) for one in passes]
    return np.concatenate(drawn)[first - passes.start * size :][: last - first]
