from __future__ import annotations

from pathlib import Path

import pytest

from actors.checkpoint import CheckpointStore


def write(store: CheckpointStore, step: int) -> None:
    (store.begin(step) / "weights").write_text(f"weights of {step}")
    store.commit(step, {"steps": step})


def test_the_newest_committed_checkpoint_is_found_with_its_state(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    assert store.latest() is None
    for step in (9, 10, 100):
        write(store, step)
    folder, state = CheckpointStore(tmp_path / "checkpoints").latest() or (None, None)
    assert folder is not None
    assert (folder / "weights").read_text() == "weights of 100"
    assert state == {"steps": 100}


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for step in range(1, 6):
        write(store, step)
    assert store.steps() == [4, 5]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004", "step-00000005"]


def test_what_was_not_committed_does_not_count(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    write(store, 1)
    (store.begin(2) / "weights").write_text("half")
    assert store.steps() == [1]


def test_a_writer_begins_with_an_empty_folder(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    (store.begin(2) / "torn").write_text("from a writer that died")
    assert list(store.begin(2).iterdir()) == []


def test_a_step_committed_twice_has_the_second_content(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    write(store, 3)
    (store.begin(3) / "weights").write_text("again")
    store.commit(3, {"steps": 3, "again": True})
    folder, state = store.latest() or (None, None)
    assert folder is not None
    assert ((folder / "weights").read_text(), state) == ("again", {"steps": 3, "again": True})


def test_a_crash_before_the_rename_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    write(store, 1)

    def crash(self: Path, target: Path) -> Path:
        raise OSError("power cut")

    (store.begin(2) / "weights").write_text("complete")
    monkeypatch.setattr(Path, "rename", crash)
    with pytest.raises(OSError, match=r"power cut"):
        store.commit(2, {"steps": 2})
    assert store.steps() == [1]


def test_keeping_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"at least one checkpoint, not 0"):
        CheckpointStore(tmp_path, keep=0)
