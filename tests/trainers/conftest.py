from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def data(clinic: Path) -> Any:
    """The data section of a stage that reads the tables `name`."""
    return lambda name: {
        "train": [str(clinic / f"{name}.train.parquet")],
        "heldout": [str(clinic / f"{name}.heldout.parquet")],
    }
