from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from data.clinic.__main__ import main
from data.clinic.build import MANIFEST, SCHEMAS, Clinic, Sizes, build, make_clinic
from data.clinic.split import make_split
from data.tables import DataError, read_table
from storage.durable import DiskError


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_same_seed_gives_the_same_bytes(clinic_folder: Path, small_sizes: Sizes, tmp_path: Path) -> None:
    _, built = build(tmp_path / "again", seed=3, sizes=small_sizes)
    assert built
    assert contents(tmp_path / "again") == contents(clinic_folder)


def test_another_seed_gives_other_rows(clinic: Clinic, small_sizes: Sizes) -> None:
    other = make_clinic(clinic.split.knowledge, seed=4, sizes=small_sizes)
    assert other.split.heldout != clinic.split.heldout
    for name, rows in clinic.rows.items():
        assert rows != other.rows[name]


def test_files_and_rows(clinic_folder: Path, clinic: Clinic, small_sizes: Sizes) -> None:
    manifest = json.loads((clinic_folder / MANIFEST).read_text("utf-8"))
    assert len(clinic.rows) == len(dataclasses.fields(Sizes)) - 1  # the vocabulary is no table
    for name, rows in clinic.rows.items():
        table = read_table(clinic_folder / f"{name}.parquet", SCHEMAS[name.split(".")[0]])
        assert table.to_pylist() == rows
        size = getattr(small_sizes, name.replace(".train", "").replace(".", "_"))
        assert manifest["rows"][name] == len(rows) == size
    assert [tuple(pair) for pair in manifest["heldout_pairs"]] == sorted(clinic.split.heldout)
    assert list(clinic_folder.parent.iterdir()) == [clinic_folder]  # nothing left aside


def test_the_split_spares_each_condition_most_of_its_facts(clinic: Clinic) -> None:
    names = [name for name, _ in clinic.split.heldout]
    assert len(names) == len(set(names))
    pairs = len(clinic.split.knowledge.conditions) * 5
    assert 0.1 < len(names) / pairs < 0.14
    assert make_split(clinic.split.knowledge, 3) == clinic.split


def test_a_small_knowledge_base_is_refused(clinic: Clinic) -> None:
    few = dataclasses.replace(clinic.split.knowledge, conditions=clinic.split.knowledge.conditions[:5])
    with pytest.raises(DataError, match="has 5 conditions in 2 departments; a clinic needs at least 20 in 6"):
        make_split(few, 0)


def test_a_clinic_that_is_there_is_left_alone(clinic_folder: Path, small_sizes: Sizes) -> None:
    before = {file: file.stat().st_mtime_ns for file in clinic_folder.rglob("*")}
    manifest, built = build(clinic_folder, seed=3, sizes=small_sizes)
    assert not built
    assert manifest["rows"]["open.heldout"] == 30
    assert {file: file.stat().st_mtime_ns for file in clinic_folder.rglob("*")} == before


def test_other_folders_are_refused(clinic_folder: Path, small_sizes: Sizes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="made with seed 3, not 4"):
        build(clinic_folder, seed=4, sizes=small_sizes)
    with pytest.raises(DataError, match="made with sft 2500, not 9"):
        build(clinic_folder, seed=3, sizes=dataclasses.replace(small_sizes, sft=9))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty and holds no clinic"):
        build(tmp_path, seed=3, sizes=small_sizes)
    with pytest.raises(DataError, match="is a file"):
        build(tmp_path / "notes.txt", seed=3, sizes=small_sizes)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_a_changed_clinic_is_refused(clinic_folder: Path, small_sizes: Sizes, tmp_path: Path) -> None:
    copy = shutil.copytree(clinic_folder, tmp_path / "clinic")
    with (copy / "open.heldout.parquet").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match=r"open\.heldout\.parquet: is missing or was changed"):
        build(copy, seed=3, sizes=small_sizes)


def test_the_command(clinic_folder: Path, small_sizes: Sizes, capsys: pytest.CaptureFixture[str]) -> None:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in dataclasses.asdict(small_sizes).items()]
    main(["--out", str(clinic_folder), "--seed", "3", *options])
    printed = capsys.readouterr().out
    assert "already built, nothing changed" in printed
    assert any(line.split() == ["sft.train", "2,500", "rows"] for line in printed.splitlines())
    with pytest.raises(SystemExit) as ended:
        main(["--out", str(clinic_folder), "--seed", "4", *options])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"python -m data.clinic: error: {clinic_folder}: holds a clinic made with seed 3, not 4; ")
    assert error.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_one_line(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("data.clinic.build.make_clinic", lambda *_: clinic)
    with pytest.raises(SystemExit) as ended:
        main(["--out", "/proc/nowhere/clinic"])
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("python -m data.clinic: error: /proc/nowhere: cannot be written (No such file")
    assert error.count("\n") == 1


def test_impossible_sizes_are_refused(tmp_path: Path, small_sizes: Sizes) -> None:
    with pytest.raises(DataError, match="different prompts can be made, not 99999"):
        build(tmp_path / "clinic", seed=0, sizes=dataclasses.replace(small_sizes, prompts_heldout=99999))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path / "clinic"), "--sft", "0"])


def test_a_folder_that_cannot_be_created_is_one_line(tmp_path: Path, small_sizes: Sizes) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match="file: cannot be written .*; name a folder that can be created"):
        build(tmp_path / "file" / "clinic", seed=3, sizes=small_sizes)
