"""The tasks on the project's own tables: each task's table, row limit, requirements, and headline metric."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from data import tables
from data.chat import check_messages
from data.tables import DataError, read_table
from evals.models.subject import Metrics, Row
from evals.tasks import choice, kl, ner, open, pairwise, perplexity, reward, winrate


def _filled(*columns: str) -> Callable[[Row], None]:
    """Returns a check that these columns are not empty."""

    def check(row: Row) -> None:
        for column in columns:
            if not row[column].strip():
                raise DataError(f"{column} is empty; fill it or drop the row")

    return check


def _awaits_answer(row: Row) -> None:
    """Checks that `prompt` is a valid chat that ends with the user's turn.

    Raises:
        DataError: the chat is invalid or does not end with the user's turn.
    """
    check_messages(row["prompt"])
    if row["prompt"][-1]["role"] != "user":
        raise DataError("prompt does not end with the user's turn; drop what follows it")


@dataclass(frozen=True)
class Task:
    """One evaluation on a held-out table."""

    table: str
    """Name of the table, DATA/{table}.heldout.parquet."""
    schema: pa.Schema
    limit: int
    """Maximum number of rows, which --limit can lower; chosen so that four models take about 100 s on two cores."""
    check: Callable[[Row], None]
    """Raises DataError for a row that cannot be scored."""
    evaluate: Callable[[Any, Sequence[Row]], Metrics]
    """Computes the metrics of a `Subject`, or of a `RewardModel` if `of_reward_model`."""
    headline: str
    """The metric that the printed table shows."""
    needs: tuple[str, ...] = ()
    """Command-line options of further models that the task requires."""
    completed: Callable[[Sequence[Row]], list[Row]] = list
    """Adds columns that depend on all rows, before rows are sampled."""
    of_reward_model: bool = False
    """Whether the task evaluates reward models instead of language models."""

    def path(self, data: Path) -> Path:
        """Returns the table's path: DATA/NAME.heldout.parquet, or the folder NAME.heldout that data.prepare writes."""
        folder = data / f"{self.table}.heldout"
        return folder if folder.is_dir() else data / f"{folder.name}.parquet"

    def read(self, data: Path, limit: int, seed: int) -> list[Row]:
        """Reads and checks the task's table.

        Args:
            data: folder of the tables.
            limit: maximum number of rows.
            seed: seed for the choice of rows if the table has more.

        Returns:
            The rows, in the table's order.

        Raises:
            DataError: the table cannot be read, or a row cannot be scored.
        """
        path = self.path(data)
        if not path.exists():
            raise DataError(f"{path}: no such file; create it, or give --tasks only tasks whose tables exist")
        rows: list[Row] = read_table(path, self.schema, may_lack=tables.MAY_LACK).to_pylist()
        for number, row in enumerate(rows):
            try:
                self.check(row)
            except DataError as error:
                raise DataError(f"{path}: row {number}: {error}") from error
        rows = self.completed(rows)
        if len(rows) <= limit:
            return rows
        return [rows[index] for index in sorted(random.Random(seed).sample(range(len(rows)), limit))]


TASKS: dict[str, Task] = {
    "perplexity": Task("pretrain", tables.PRETRAIN, 200, _filled("text"), perplexity.evaluate, "perplexity"),
    "choice": Task("choice", tables.CHOICE, 300, choice.check, choice.evaluate, "accuracy"),
    "ner": Task("ner", tables.NER, 200, _filled("text"), ner.evaluate, "f1", completed=ner.with_types),
    "open": Task("open", tables.OPEN, 150, _filled("question", "reference"), open.evaluate, "rouge_l"),
    "reward": Task("prompts", tables.PROMPTS, 96, _awaits_answer, reward.evaluate, "mean", needs=("--reward-model",)),
    "kl": Task("prompts", tables.PROMPTS, 96, _awaits_answer, kl.evaluate, "per_sequence", needs=("--reference",)),
    "preference": Task(
        "prompts",
        tables.PROMPTS,
        96,
        _awaits_answer,
        winrate.evaluate,
        "win_rate",
        needs=("--reward-model", "--against"),
    ),
    "pairwise": Task(
        "preference",
        tables.PREFERENCE_WITH_MARGIN,
        1000,
        _filled("chosen", "rejected"),
        pairwise.evaluate,
        "accuracy",
        of_reward_model=True,
    ),
}
