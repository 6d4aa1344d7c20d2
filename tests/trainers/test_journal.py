from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from trainers.journal import Journal

ROWS = pa.table({"response": pa.array([[1, 2], [3]], pa.list_(pa.int32())), "finished": [True, False]})


def test_what_is_recorded_is_recalled_with_its_version(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    assert journal.recall(3, version=3) is None
    journal.record(3, 3, ROWS)
    recalled = journal.recall(3, version=3)
    assert recalled is not None
    assert recalled.to_pydict() == ROWS.to_pydict()
    assert [path.name for path in journal.folder.iterdir()] == ["step-00000003.parquet"]  # nothing is left aside


def test_rollouts_of_other_weights_are_refused_by_name(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.record(3, 3, ROWS)
    with pytest.raises(ValueError, match=r"step-00000003\.parquet.*weights version 3.*version 4"):
        journal.recall(3, version=4)


def test_rollouts_of_any_weights_in_between_are_recalled_where_allowed(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.record(3, 2, ROWS)
    assert journal.recall(3, version=1, newest=3) is not None
    with pytest.raises(ValueError, match="weights version 2"):
        journal.recall(3, version=3, newest=4)
