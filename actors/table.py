"""Declares the columns of the RLHF table: an Arrow table with one row per response, to which each role adds columns.

A list column has one value per token of the row's response, except `prompt` and `response`, which hold token ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

_IDS: Final = pa.list_(pa.int32())
_FLOATS: Final = pa.list_(pa.float32())


@dataclass(frozen=True)
class Column:
    """Declaration of one column.

    Attributes:
        type: Arrow type.
        by: what adds the column: a role, `prompts`, or the `driver`.
        what: meaning of the values, with their unit.
        instead: a role that adds the column in place of `by` in some runs; empty if there is none.
    """

    type: pa.DataType
    by: str
    what: str
    instead: str = ""


COLUMNS: Final[Mapping[str, Column]] = {
    "prompt_id": Column(pa.int32(), "prompts", "index of the prompt in its table"),
    "group": Column(pa.int64(), "prompts", "place of the prompt in the run; its responses have the same"),
    "sample": Column(pa.int32(), "prompts", "number of the response to this prompt, from 0"),
    "seed": Column(pa.int64(), "prompts", "seed of the sampler"),
    "prompt": Column(_IDS, "prompts", "token ids"),
    "response": Column(_IDS, "rollout", "token ids, the end included"),
    "rollout_logprobs": Column(_FLOATS, "rollout", "log-probability when sampled, nats"),
    "finished": Column(pa.bool_(), "rollout", "whether the response ended by itself"),
    "versions": Column(_IDS, "rollout", "version of the weights; only with rollout.in_flight"),
    "ref_logprobs": Column(_FLOATS, "reference", "log-probability of the reference, nats", instead="policy"),
    "reward_model": Column(pa.float32(), "reward", "score of the reward model"),
    "values": Column(_FLOATS, "critic", "expected return before the token"),
    "logprobs": Column(_FLOATS, "policy", "log-probability of the policy before the update, nats"),
    "reward": Column(pa.float32(), "driver", "weighted sum of the rewards of all sources"),
    "score": Column(pa.float64(), "driver", "the reward after clipping, scaling, and length penalties"),
    "weights": Column(_FLOATS, "driver", "share of the token in the loss of its minibatch; 0 is not trained"),
    "advantages": Column(_FLOATS, "driver", "advantage of the token"),
    "returns": Column(_FLOATS, "driver", "target of the critic; only with a critic"),
}
SOURCE: Final = "reward_"
"""Prefix of the columns that hold the reward of one source: `reward_model`, or `reward_NAME` for a reward function."""
_OF_FUNCTION: Final = Column(pa.float32(), "reward_function", "reward of a reward function")


class TableError(ValueError):
    """A column is missing or does not match its declaration; the message names the column."""


def column_of(name: str) -> Column:
    """Returns the declaration of a column.

    Raises:
        TableError: the column is not declared.
    """
    if name in COLUMNS:
        return COLUMNS[name]
    if name.startswith(SOURCE):
        return _OF_FUNCTION
    raise TableError(f"{name}: is no column of the table; declare it in actors/table.py")


def reward_sources(table: pa.Table) -> list[str]:
    """Returns the names of the columns that each hold the rewards of one source."""
    return [name for name in table.column_names if name.startswith(SOURCE)]


def extended(table: pa.Table, added: pa.Table | Mapping[str, pa.Array[Any]], by: str) -> pa.Table:
    """Returns `table` with the columns `added`, after checking them against their declarations.

    Args:
        table: the table to extend; may be empty.
        added: new columns, in the row order of `table`.
        by: what adds them, as in `Column.by`.

    Raises:
        TableError: a column is undeclared, is declared for another `by`, already exists, has nulls, or has the wrong
            type, number of rows, or number of values for a response.
    """
    columns = {name: added[name] for name in (added.column_names if isinstance(added, pa.Table) else added)}
    for name, column in columns.items():
        declared = column_of(name)
        if by not in (declared.by, declared.instead):
            raise TableError(f"{name}: is added by {declared.by}, not by {by}")
        if name in table.column_names:
            raise TableError(f"{name}: is in the table already")
        if column.type != declared.type:
            raise TableError(f"{name}: has the type {column.type}, not {declared.type}")
        if table.num_columns and len(column) != table.num_rows:
            raise TableError(f"{name}: has {len(column)} rows, and the table {table.num_rows}")
        if column.null_count:
            raise TableError(f"{name}: lacks {column.null_count} values")
        table = table.append_column(name, column) if table.num_columns else pa.table({name: column})
        if pa.types.is_list(declared.type) and name not in ("prompt", "response"):
            _require_per_token(table, name)
    return table


def require(table: pa.Table, names: Iterable[str], who: str) -> None:
    """Checks that `table` has all columns in `names`; the error message says that `who` needs them.

    Raises:
        TableError: a column is missing; the message names the first one and what adds it.
    """
    for name in names:
        if name not in table.column_names:
            raise TableError(f"{who} needs the column {name}, which {column_of(name).by} adds")


def require_schema(table: pa.Table, schema: pa.Schema, point: str) -> pa.Table:
    """Returns `table` after checking that it has the columns of `schema`, in any order, and no others.

    Args:
        table: the table at this point of a step.
        schema: the expected columns and their types.
        point: what the table holds at this point, for the error message, e.g. "responses".

    Raises:
        TableError: a column is missing, is not expected, or has another type; the message names the column.
    """
    require(table, schema.names, f"the table of {point}")
    for field in table.schema:
        if field.name not in schema.names:
            raise TableError(f"{field.name}: the table of {point} has no such column with these settings")
        if field.type != schema.field(field.name).type:
            raise TableError(f"{field.name}: has the type {field.type}, not {schema.field(field.name).type}")
    return table


def _require_per_token(table: pa.Table, name: str) -> None:
    found, wanted = (np.diff(_offsets(table.column(one))) for one in (name, "response"))
    if (wrong := np.flatnonzero(found != wanted)).size:
        row = int(wrong[0])
        raise TableError(f"{name}: row {row} has {found[row]} values for a response of {wanted[row]} tokens")


def _offsets(column: pa.ChunkedArray[Any]) -> np.ndarray:
    """Returns the offsets of a list column, (rows + 1,): the start of each row and the end of the last one."""
    lists = column.combine_chunks()
    assert isinstance(lists, pa.ListArray)
    return lists.offsets.to_numpy()
