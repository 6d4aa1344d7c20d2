"""In which order the rows of a training table come, of one source or mixed of several. Nothing here depends on what came
before, so that training can be resumed at any step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from data.tables import DataError


@dataclass(frozen=True)
class Order:
    """The order of N rows, of which the first `sources[0]` are the first source's, and so on.

    An epoch is N rows. Without `weights` it is every row once, in a seeded order. With them each source gives its share of
    the N rows, however many it has: it is gone through in passes of its own, each in a seeded order, and goes on in the
    next epoch where it stopped in this. Within an epoch the sources are shuffled.
    """

    sources: tuple[int, ...]
    seed: int
    weights: tuple[float, ...] | None = None

    @property
    def rows(self) -> int:
        """N."""
        return sum(self.sources)

    @property
    def shares(self) -> tuple[int, ...]:
        """Rows of each source in an epoch; their sum is N (what rounding down leaves goes to the largest remainders).

        Raises DataError for a weight so small that its source would never come.
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
        """How often an epoch goes through each source."""
        return tuple(share / size for share, size in zip(self.shares, self.sources, strict=True))

    def of_step(self, step: int, batch_size: int) -> list[int]:
        """The rows that optimizer step `step` (from 0) learns from, `batch_size` of them.

        Epochs follow one another, a step taking the next `batch_size`; where one ends the next begins within the step.
        """
        first, last = step * batch_size, (step + 1) * batch_size
        taken: list[int] = []
        for epoch in range(first // self.rows, -(-last // self.rows)):
            rows = _epoch(self, epoch)
            taken += rows[max(0, first - epoch * self.rows) : last - epoch * self.rows].tolist()
        return taken


@lru_cache(maxsize=2)
def _epoch(order: Order, epoch: int) -> NDArray[np.int64]:
    """The N rows of an epoch. Kept, because a permutation of many rows takes longer than a step should wait."""
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
    """What a source gives from its `first` draw to before its `last`: rows from 0, one permutation after another."""
    size = order.sources[source]
    passes = range(first // size, -(-last // size))
    drawn = [np.random.default_rng((order.seed, 2, source, one)).permutation(size) for one in passes]
    return np.concatenate(drawn)[first - passes.start * size :][: last - first]
