from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.zero.checkpoint import CheckpointStore, DamagedCheckpoint, verify
from configs.errors import RunError
from storage.durable import DiskError, sha256


def write(store: CheckpointStore, step: int, begun: bool = False) -> None:
    folder = store.aside(step) if begun else store.begin(step)
    (folder / "weights").write_text(f"weights of {step}")
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
    with pytest.raises(DiskError, match=r"power cut"):
        store.commit(2, {"steps": 2})
    assert store.steps() == [1]


def damage(path: Path, kind: str) -> None:
    """Flips a bit of the file's middle byte, cuts its second half off, or deletes it."""
    if kind == "deleted":
        path.unlink()
        return
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content[: len(content) // 2] if kind == "truncated" else content)


@pytest.mark.parametrize("kind", ["flipped", "truncated", "deleted"])
@pytest.mark.parametrize("file", ["weights", "policy/shard.pt", "state.json", "SHA256SUMS"])
def test_a_damaged_checkpoint_is_refused_by_name_and_the_one_before_it_used(
    tmp_path: Path, file: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = CheckpointStore(tmp_path)
    for step in (1, 2):
        shard = store.begin(step) / "policy" / "shard.pt"
        shard.parent.mkdir()
        shard.write_bytes(bytes(range(256)))
        write(store, step, begun=True)
    damage(tmp_path / "step-00000002" / file, kind)
    found = store.latest()
    assert found == (tmp_path / "step-00000001", {"steps": 1})
    (line,) = caplog.messages
    word = "missing" if kind == "deleted" else "(damaged|truncated)"
    assert re.match(rf"{tmp_path}/step-00000002/{file}: {word}.*; skipping step-00000002", line), line
    caplog.clear()
    write(store, 2)
    assert store.latest() == (tmp_path / "step-00000002", {"steps": 2})
    assert caplog.messages == []


def test_the_manifest_is_one_that_sha256sum_checks(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    write(store, 1)
    command = ["sha256sum", "--strict", "--check", "SHA256SUMS"]
    checked = subprocess.run(command, cwd=tmp_path / "step-00000001", capture_output=True, text=True, check=True)
    assert checked.stdout.splitlines() == ["state.json: OK", "weights: OK"]


def test_a_writers_own_checksum_is_believed_and_its_file_must_be_there(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    (store.begin(1) / "weights").write_text("as written")
    digest = sha256(store.aside(1) / "weights")
    (store.aside(1) / "weights").write_text("changed on its way")
    verified = store.commit(1, {}, {"weights": digest})
    with pytest.raises(DamagedCheckpoint, match=r"step-00000001/weights: damaged"):
        verify(verified)
    store.begin(2)
    with pytest.raises(RunError, match=r"aside-00000002/weights: written, but not here: all machines must share"):
        store.commit(2, {}, {"weights": digest})
    assert store.steps() == [1]


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, file_size_limit: Callable[[int], None]) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    write(store, 1)
    (store.begin(2) / "weights").write_text("complete")
    file_size_limit(100)
    with pytest.raises(
        DiskError, match=r"aside-00000002/SHA256SUMS: cannot be written .*; make room, then run the same command"
    ):
        store.commit(2, {"steps": 2})
    file_size_limit(2**30)
    assert store.latest() == (tmp_path / "step-00000001", {"steps": 1})
    write(store, 2)
    assert store.steps() == [2]


def test_keeping_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"at least one checkpoint, not 0"):
        CheckpointStore(tmp_path, keep=0)


@pytest.mark.parametrize("name", ["zero/planted_optim_states.pt", "planted.pt"])
def test_a_file_that_was_not_written_with_the_checkpoint_is_refused(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = CheckpointStore(tmp_path)
    write(store, 1)
    write(store, 2)
    planted = tmp_path / "step-00000002" / name  # DeepSpeed unpickles every file whose name fits
    planted.parent.mkdir(exist_ok=True)
    planted.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(DamagedCheckpoint, match=rf"{name}: not in SHA256SUMS, so this run did not write it"):
        verify(tmp_path / "step-00000002")
    folder, _ = store.latest() or (None, None)
    assert folder == tmp_path / "step-00000001"
    assert f"{name}: not in SHA256SUMS" in caplog.text


def test_a_checkpoint_without_our_checksums_is_not_used(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    foreign = tmp_path / "step-00000005" / "zero"
    foreign.mkdir(parents=True)
    (foreign / "model_states.pt").write_bytes(b"a pickle")
    assert store.latest() is None
