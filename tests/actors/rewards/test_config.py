from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from actors.rewards.config import FunctionRewardConfig, HttpRewardConfig

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "is not an HTTP URL"),
        ("localhost:9000/reward", "is not an HTTP URL"),
        ("ftp://host/reward", "is not an HTTP URL"),
        ("http:///reward", "is not an HTTP URL"),
        ("http://host:99999/", "is not an HTTP URL"),
        ("http://host:port/", "is not a valid URL (Invalid port: 'port')"),
        ("http://a..b/", "is not a valid URL ("),
        ("http://me:secret@host/", "contains a user or password"),
    ],
)
def test_url_that_cannot_be_asked(url: str, message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        HttpRewardConfig(url=url)
    (problem,) = refused.value.errors()
    assert str(problem["ctx"]["error"]).startswith(message)  # what the recipe's one line says, without the input
    assert "secret" not in str(problem["ctx"]["error"])


@pytest.mark.parametrize(
    ("url", "conversations"),
    [
        ("http://127.0.0.1:8000/v1/score", True),
        ("https://host/gateway/v1/score/?model=x", True),
        ("http://host/v1/scores", False),
        ("http://host/reward?like=/v1/score", False),
        ("http://[::1]:9000/奖励", False),
    ],
)
def test_path_decides_the_bodies(url: str, conversations: bool) -> None:
    assert HttpRewardConfig(url=url).takes_conversations is conversations


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout_s": 0},
        {"retries": -1},
        {"batch_size": 0},
        {"concurrent": 0},
        {"weight": float("nan")},
        {"api_key_variable": "sk-123"},
        {"api_key": "x"},
    ],
)
def test_settings_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        HttpRewardConfig(url="http://host/", **wrong)


def test_our_endpoint_has_a_largest_batch() -> None:
    with pytest.raises(ValidationError, match=r"batch_size 257 is above the limit of /v1/score"):
        HttpRewardConfig(url="http://host/v1/score", batch_size=257)
    assert HttpRewardConfig(url="http://host/reward", batch_size=257).batch_size == 257


def test_defaults() -> None:
    assert FunctionRewardConfig(file="x.py").model_dump() == {"file": "x.py", "function": "reward", "weight": 1.0}
    assert HttpRewardConfig(url="http://host/").model_dump() == {
        "url": "http://host/",
        "weight": 1.0,
        "timeout_s": 30,
        "retries": 3,
        "batch_size": 64,
        "concurrent": 4,
        "max_response_bytes": 4 * 2**20,
        "api_key_variable": "",
    }


def test_reading_settings_loads_no_http_client() -> None:
    code = "import actors.rewards.config, sys; print([m for m in ('httpx', 'torch', 'ray') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "[]\n"
