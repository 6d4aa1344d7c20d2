from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hub import Hub, environment

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_every_other_node_downloads_once(hub: Hub, copy: Callable[..., Path], tmp_path: Path) -> None:
    hub.commit("models", "org/name", copy())
    second = tmp_path / "second"
    program = [sys.executable, str(ROOT / "tests" / "support" / "two_hub_nodes.py")]
    variables = {
        **environment(hub, tmp_path / "first"),
        "SECOND_HF_HOME": str(second),
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    done = subprocess.run([*program, "org/name"], env=variables, capture_output=True, text=True, timeout=300)
    # Downloaded there by the first call; the second wants the folder of the driver.
    assert list((second / "hub").rglob("model.safetensors"))
    downloads = [request for request in hub.requests if request.startswith("GET") and "model.safetensors" in request]
    assert len(downloads) == 2  # a node each
    assert done.returncode == 2
    assert "unlike this one; set HF_HOME alike on all nodes" in done.stderr.splitlines()[-1]
