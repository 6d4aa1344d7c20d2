"""`make env DEVICE=...` refuses what it cannot install for, before it makes anything."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

LOCKS = Path(__file__).resolve().parents[1] / "locks"


@pytest.mark.parametrize(
    ("device", "driver", "refused"),
    [
        ("tpu", None, "DEVICE=tpu: give cpu or gpu"),
        ("gpu", None, "DEVICE=gpu: nvidia-smi finds no GPU with a driver; install NVIDIA's driver 580 or newer"),
        ("gpu", "550.54.15", "DEVICE=gpu: NVIDIA's driver is 550.54.15; CUDA 13 needs 580 or newer"),
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
    assert done.returncode == 1
    assert done.stderr.startswith(f"env: error: {refused}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / ".venv").exists()
