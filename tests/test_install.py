"""`make env` and `chimed install`: what is refused before anything is made, and which environments are replaced."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from locks import install

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "locks"


@pytest.mark.parametrize(
    ("device", "driver", "refused"),
    [
        ("tpu", None, "argument --device: invalid choice: 'tpu'"),
        ("gpu", None, "device gpu: nvidia-smi finds no GPU with a driver; install NVIDIA's driver 580 or newer"),
        ("gpu", "550.54.15", "device gpu: NVIDIA's driver is 550.54.15; CUDA 13 needs 580 or newer"),
    ],
)
def test_a_device_that_cannot_be_installed_for_is_refused(
    device: str, driver: str | None, refused: str, tmp_path: Path
) -> None:
    shutil.copytree(LOCKS, tmp_path / "locks")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvidia-smi").write_text("#!/bin/sh\n" + (f"echo {driver}\n" if driver else "exit 9\n"))
    (tmp_path / "bin" / "nvidia-smi").chmod(0o755)
    path = os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", str(tmp_path / "locks" / "install.sh")],
        env={**os.environ, "PATH": path, "DEVICE": device},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith(f"python -m locks.install: error: {refused}")
    assert not (tmp_path / ".venv").exists()


def environment(
    prefix: Path, *, device: str = "cpu", root: Path = ROOT, version: str = platform.python_version()
) -> Path:
    """An environment as the installation leaves it, with a file that a new one lacks."""
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin" / "python").symlink_to(sys.executable)
    (prefix / "pyvenv.cfg").write_text(f"home = /usr/bin\nversion = {version}\n")
    (prefix / "device").write_text(f"{device}\n")
    (prefix / "installed").write_text(f"{root}\n")
    (prefix / "kept").touch()
    return prefix


@pytest.mark.parametrize(
    ("other", "kept"),
    [({}, True), ({"device": "gpu"}, False), ({"root": Path("/elsewhere")}, False), ({"version": "3.10.1"}, False)],
)
def test_an_environment_that_was_moved_or_made_for_something_else_is_replaced(
    other: dict[str, Any], kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = environment(tmp_path / "env", **other)
    monkeypatch.setattr(install, "_check_machine", lambda device, driver: None)
    monkeypatch.setattr(install, "_install", lambda prefix, device: None)
    assert install.main(["--venv", str(prefix), "--device", "cpu"]) == 0
    assert (prefix / "kept").exists() == kept


def test_the_same_lock_is_installed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prefix = environment(tmp_path / "env")
    (prefix / "installed").write_text(install._stamp("cpu") + "\n")
    assert install.main(["--venv", str(prefix)]) == 0
    assert capsys.readouterr().out == "env: up to date\n"


def test_builds_that_break_torch_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.28.0")
    with pytest.raises(install.InstallError, match="pip uninstall torchvision"):
        install._check_environment("cpu")
    install._check_environment("gpu")
