"""The wheel: it has every file of the packages, and its commands work from any folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from data.clinic.build import Sizes

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
START = "import sys; from chimed.__main__ import main; sys.exit(main())"  # the wheel's script `chimed`


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the project, and unpacked as pip does."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*command, str(source)], check=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def chimed(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site), "CHIMED_RUNS": str(folder / "runs")}
    command = [sys.executable, "-P", "-c", START, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_it_has_every_file_of_the_packages(installed: Path) -> None:
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    found = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    assert wanted <= found
    assert {name for name in found - wanted if ".dist-info/" not in name} == set()
    (metadata,) = installed.glob("*.dist-info/METADATA")
    assert "Requires-Dist" not in metadata.read_text(encoding="utf-8")  # what pip would resolve does not work


def test_its_commands_work_from_another_folder(installed: Path, tmp_path: Path) -> None:
    sizes = [f"--{name.replace('_', '-')}={number}" for name, number in SMALL.items()]
    built = chimed(installed, tmp_path, "clinic", "--out", "clinic", *sizes)
    assert (built.returncode, built.stderr) == (0, "")
    assert (tmp_path / "clinic" / "manifest.json").is_file()
    run = tmp_path / "runs" / "r"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("ppo:\n  name: r\n", encoding="utf-8")
    (run / "metrics.jsonl").write_text('{"step": 1, "time": 1.0, "reward": 0.5}\n', encoding="utf-8")
    reported = chimed(installed, tmp_path, "report", "runs/r")
    assert reported.returncode == 0, reported.stderr
    assert "<figure" in (run / "report.html").read_text(encoding="utf-8")
    recipe = installed / "configs" / "laptop.yaml"
    wrong = chimed(installed, tmp_path, "sft", "--config", str(recipe), "--optimiser.lr=1")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "did you mean 'optimizer'?" in wrong.stderr
    assert str(ROOT) not in built.stdout + reported.stdout + wrong.stderr


def test_outside_an_environment_with_the_engines_it_says_what_to_install(installed: Path, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(installed)}
    bare = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    command = [str(bare), "-P", "-c", START, "ppo"]
    refused = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert refused.stderr.endswith(": run chimed install\n")
    assert refused.stderr.count("\n") == 1


def test_it_installs_its_lock_in_virtual_environments_only(installed: Path, tmp_path: Path) -> None:
    bare = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    command = [str(bare), "-P", "-c", START, "install"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(installed)}
    refused = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"chimed install: error: {bare} is not in a virtual environment")
    assert refused.stderr.count("\n") == 1


SMALL = {"pretrain": 40, "sft": 40, "preference": 40, "prompts": 20, "vocabulary": 400}
assert set(SMALL) <= set(Sizes.__dataclass_fields__)
