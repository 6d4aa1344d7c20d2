"""What `ray job submit --working-dir .` takes along."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package

ROOT = Path(__file__).resolve().parent.parent
TAKEN = {"pyproject.toml", "configs/laptop.yaml", "trainers/ppo.py", "data/clinic/conditions.yaml"}
LEFT = {
    ".venv/bin/python",
    ".git/config",
    "runs/quickstart/sft/config.yaml",
    "tests/test_upload.py",
    "trainers/__pycache__/ppo.pyc",
    ".mypy_cache/x",
    "model.safetensors",
    "exports/sft.train.parquet",
}


def test_a_job_takes_the_code_and_leaves_the_bulk(tmp_path):
    project = tmp_path / "project"
    for name in TAKEN | LEFT:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("x")
    for name in (".gitignore", ".rayignore"):
        shutil.copy(ROOT / name, project)
    package = tmp_path / "package.zip"
    create_package(str(project), package, include_gitignore=True, excludes=get_runtime_env_default_excludes())
    names = {name for name in zipfile.ZipFile(package).namelist() if not name.endswith("/")}
    assert names - {".gitignore", ".rayignore"} == TAKEN
