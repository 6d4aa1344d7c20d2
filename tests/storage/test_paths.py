from __future__ import annotations

import os
import sys

import pytest

from configs.errors import ConfigError
from storage.paths import in_job, require_dir, require_file, resolve, runs_root

JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def test_the_variable_decides(tmp_path, monkeypatch):
    assert runs_root() == tmp_path / "runs"
    monkeypatch.setenv("CHIMED_RUNS", "~/medical")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert runs_root() == tmp_path / "medical"


def test_without_it_runs_lie_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.delenv("CHIMED_RUNS")
    monkeypatch.chdir(tmp_path)
    assert not in_job()
    assert runs_root() == tmp_path / "runs"


def job_copy(tmp_path, monkeypatch, how: str) -> None:
    copy = tmp_path / "session" / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    copy.mkdir(parents=True)
    monkeypatch.delenv("CHIMED_RUNS")
    monkeypatch.chdir(copy if how == "folder" else tmp_path)
    if how == "variable":
        monkeypatch.setenv(JOB, "{}")


@pytest.mark.parametrize("how", ["folder", "variable"])
def test_in_a_job_runs_lie_beside_the_environment(tmp_path, monkeypatch, how):
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").touch()
    monkeypatch.setattr(sys, "prefix", str(project / ".venv"))
    job_copy(tmp_path, monkeypatch, how)
    assert in_job()
    assert runs_root() == project / "runs"


@pytest.mark.parametrize("prefix", ["/usr", "/opt/.venv"])
def test_in_a_job_without_such_an_environment_the_folder_must_be_named(tmp_path, monkeypatch, prefix):
    monkeypatch.setattr(sys, "prefix", prefix)
    job_copy(tmp_path, monkeypatch, "folder")
    with pytest.raises(
        ConfigError, match="^CHIMED_RUNS is not set, and a job's working folder is deleted when the job ends"
    ):
        runs_root()


def test_only_a_leading_runs_is_resolved(tmp_path):
    assert resolve("runs/quickstart/sft") == tmp_path / "runs" / "quickstart" / "sft"
    assert resolve("runs") == tmp_path / "runs"
    assert str(resolve("models/runs/x")) == "models/runs/x"
    assert str(resolve("/data/runs/x")) == "/data/runs/x"


def test_what_is_required_must_be_there(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "table").touch()
    assert require_file("runs/table", "SFT table", "make it") == tmp_path / "runs" / "table"
    assert require_dir(tmp_path, "model", "make it") == tmp_path
    with pytest.raises(ConfigError, match="^SFT table: there is no file .*/runs/none; make it$"):
        require_file("runs/none", "SFT table", "make it")
    with pytest.raises(ConfigError, match="^model: .*/runs/table is not a folder; train it$"):
        require_dir("runs/table", "model", "train it")
    with pytest.raises(ConfigError, match="^table: .* is not a file; make it$"):
        require_file(tmp_path, "table", "make it")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_named(tmp_path):
    (tmp_path / "secret").touch(0)
    with pytest.raises(ConfigError, match="no permission to read"):
        require_file(tmp_path / "secret", "table", "make it")


def test_a_misspelled_part_of_a_path_is_suggested(tmp_path):
    (tmp_path / "runs/base/model").mkdir(parents=True)
    for given, close in (("runs/base/modle", "model"), ("runs/bsae/model", "base")):
        with pytest.raises(ConfigError, match=rf"there is no folder .*/{given}; did you mean '{close}'\?; a hint"):
            require_dir(given, "model", "a hint")
    with pytest.raises(ConfigError, match=r"there is no folder .*/runs/other; a hint"):
        require_dir("runs/other", "model", "a hint")
