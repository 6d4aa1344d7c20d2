from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.checksummed import DamagedTable, read_checksummed, read_or_set_aside, write_checksummed
from storage.durable import DiskError, checksum_fault, with_checksum

ROWS = pa.table({"response": pa.array([[1, 2], [3]], pa.list_(pa.int32())), "text": ["头痛", "发热"]})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_checksummed(tmp_path / "t.parquet", ROWS, {"weights_version": "3"})
    return tmp_path / "t.parquet"


def test_what_is_written_is_read_with_its_facts_and_any_reader_of_parquet_reads_it(path: Path) -> None:
    table, facts = read_checksummed(path)
    assert table.equals(ROWS)
    assert table.schema.metadata is None
    assert facts == {"weights_version": "3"}
    assert pq.read_table(path).to_pydict() == ROWS.to_pydict()
    metadata = pq.read_metadata(path).metadata
    assert metadata[b"weights_version"] == b"3"
    digits = metadata[b"checksum"].removeprefix(b"sha256:")
    content = path.read_bytes().replace(digits, b"0" * 64)
    assert hashlib.sha256(content).hexdigest().encode() == digits
    assert [other.name for other in path.parent.iterdir()] == ["t.parquet"]  # nothing is left aside


def test_every_changed_byte_is_noticed(path: Path) -> None:
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(DamagedTable, match=r"t\.parquet: damaged( or truncated|, or written by an)"):
            read_checksummed(path)


def test_a_file_cut_off_anywhere_is_noticed(path: Path) -> None:
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(DamagedTable, match=r"t\.parquet: damaged( or truncated|, or written by an)"):
            read_checksummed(path)


def test_a_damaged_file_is_said_and_put_aside(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(path.read_bytes()[:-1])
    assert read_or_set_aside(path, "it is made again") is None
    (line,) = caplog.messages
    assert line.startswith(f"{path}: damaged or truncated")
    assert line.endswith("kept as t.parquet.damaged, it is made again")
    assert [other.name for other in path.parent.iterdir()] == ["t.parquet.damaged"]
    caplog.clear()
    assert read_or_set_aside(path, "it is made again") is None
    assert caplog.messages == []


def test_a_full_disk_leaves_the_file_that_was_there(path: Path, file_size_limit: Callable[[int], None]) -> None:
    before = path.read_bytes()
    file_size_limit(64)
    with pytest.raises(
        DiskError, match=r"t\.parquet: cannot be written \(File too large\); make room, then run the same command"
    ):
        write_checksummed(path, ROWS.slice(1), {})
    file_size_limit(2**30)  # before anyone writes a word about this test
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 1


def test_sealed_text_shows_changes() -> None:
    content = with_checksum("seed: 1\n")
    assert checksum_fault(content) is None
    assert "damaged or changed" in str(checksum_fault(content.replace(b"1", b"2", 1)))
    assert "truncated" in str(checksum_fault(b"seed: 1\n"))
    assert checksum_fault(b"seed: 1\n", required=False) is None
