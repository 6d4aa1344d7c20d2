from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from actors.modeling.rows import as_list_column, flat, lengths, pack, tokens

TABLE = pa.table(
    {
        "prompt": pa.array([[5, 6], [7], [8, 9, 10]], pa.list_(pa.int32())),
        "response": pa.array([[1], [2, 3], [4]], pa.list_(pa.int32())),
        "logprobs": pa.array([[-1.0], [-2.0, -3.0], [-4.0]], pa.list_(pa.float32())),
    }
)


def test_lengths_and_flat_undo_as_list_column() -> None:
    assert lengths(TABLE, "prompt", "response").tolist() == [3, 3, 4]
    again = as_list_column(flat(TABLE, "logprobs"), lengths(TABLE, "logprobs"), pa.float32())
    assert again.to_pylist() == TABLE.column("logprobs").to_pylist()
    with pytest.raises(ValueError, match="4 values do not fill rows of 3"):
        as_list_column(np.zeros(4), [1, 2], pa.float32())


def test_lengths_of_a_slice_are_its_own() -> None:
    assert lengths(TABLE.slice(1), "prompt").tolist() == [1, 3]
    assert flat(TABLE.slice(1), "logprobs").tolist() == [-2.0, -3.0, -4.0]


def test_packing_predicts_the_response_and_nothing_else() -> None:
    batch = pack(TABLE, [2, 0])
    assert batch.input_ids.tolist() == [8, 9, 10, 4, 5, 6, 1]
    assert batch.lengths == (4, 3)
    assert batch.targets.tolist() == [4, 1]
    assert batch.predict.tolist() == [2, 5]
    assert batch.target_counts == [1, 1]
    assert tokens(TABLE, "logprobs", [2, 1]).tolist() == [-4.0, -2.0, -3.0]
