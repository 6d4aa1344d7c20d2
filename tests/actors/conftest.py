from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def copy(make_model: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """A folder of a test's own with a model that `make_model` makes, with settings of its config changed."""

    def make(of: str = "a", reward: bool = False, **changes: Any) -> Path:
        folder = tmp_path / f"copy-{of}"
        shutil.copytree(make_model(of, reward=reward, **({"seed": 5} if reward else {})), folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
        return folder

    return make
