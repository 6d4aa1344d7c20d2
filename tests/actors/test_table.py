"""The declared table: what may be added, by whom, in which form."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from actors.table import COLUMNS, TableError, column_of, extended, require, reward_sources

PROMPTS = pa.table({"prompt": pa.array([[1, 2], [3]], pa.list_(pa.int32()))})
ANSWERED = extended(
    PROMPTS,
    {
        "response": pa.array([[4], [5, 6]], pa.list_(pa.int32())),
        "rollout_logprobs": pa.array([[-0.5], [-1.0, -2.0]], pa.list_(pa.float32())),
        "finished": pa.array([True, False]),
    },
    "rollout",
)


def floats(*rows: list[float] | None) -> pa.Array:
    return pa.array(rows, pa.list_(pa.float32()))


@pytest.mark.parametrize(
    ("added", "by", "message"),
    [
        ({"mood": pa.array([1, 2])}, "driver", "mood: is no column of the table; declare it in actors/table.py"),
        ({"values": floats([1], [1, 2])}, "policy", "values: is added by critic, not by policy"),
        ({"response": ANSWERED["response"]}, "rollout", "response: is in the table already"),
        (
            {"values": pa.array([[1.0], [1, 2]])},
            "critic",
            "values: has the type list<item: double>, not list<item: float>",
        ),
        ({"values": floats([1])}, "critic", "values: has 1 rows, and the table 2"),
        ({"values": floats([1], None)}, "critic", "values: lacks 1 values"),
        ({"values": floats([1], [1])}, "critic", "values: row 1 has 1 values for a response of 2 tokens"),
        (
            {"reward_model": pa.array([1, 2], pa.float32())},
            "reward_function",
            "reward_model: is added by reward, not by reward_function",
        ),
    ],
)
def test_a_column_that_is_not_as_declared_is_refused_by_name(added: Any, by: str, message: str) -> None:
    with pytest.raises(TableError) as refused:
        extended(ANSWERED, added, by)
    assert str(refused.value).replace("element", "item") == message


def test_roles_add_their_columns_in_any_order() -> None:
    scored = extended(ANSWERED, {"reward_length": pa.array([1, 2], pa.float32())}, "reward_function")
    scored = extended(scored, pa.table({"values": floats([1], [1, 2])}), "critic")
    assert scored.column_names[-2:] == ["reward_length", "values"]
    assert reward_sources(scored) == ["reward_length"]
    assert scored.select(ANSWERED.column_names).equals(ANSWERED)


def test_a_missing_column_is_named_with_the_role_that_adds_it() -> None:
    require(ANSWERED, ("prompt", "response"), "Reference")
    with pytest.raises(TableError, match=r"the update of Policy needs the column weights, which driver adds"):
        require(ANSWERED, ("response", "weights"), "the update of Policy")


def test_every_declaration_says_who_and_what() -> None:
    roles = {"prompts", "rollout", "reference", "reward", "critic", "policy", "driver"}
    assert {column.by for column in COLUMNS.values()} == roles
    assert all(column.what for column in COLUMNS.values())
    assert column_of("reward_my_function").by == "reward_function"
