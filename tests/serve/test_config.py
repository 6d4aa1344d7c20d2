from __future__ import annotations

from typing import Any

import pytest

from configs.errors import ConfigError
from serve.config import named_folders, read_arguments


def test_arguments_of_a_command_line_and_of_a_file_mean_the_same() -> None:
    typed = read_arguments(
        {"model": "runs/a/model", "replicas.count": "2", "engine.max_model_len": "512", "cors_origins": "[a, b]"}
    )
    written = read_arguments(
        {
            "model": "runs/a/model",
            "replicas": {"count": 2},
            "engine": {"max_model_len": 512},
            "cors_origins": ["a", "b"],
        }
    )
    assert typed == written
    assert (typed.replicas.count, typed.engine.max_model_len, typed.cors_origins) == (2, 512, ["a", "b"])


@pytest.mark.parametrize(("gpus", "dtype"), [("0", "float32"), ("2", "bfloat16")])
def test_engines_and_reward_model_compute_in_what_their_devices_are_made_for(gpus: str, dtype: str) -> None:
    other = "bfloat16" if dtype == "float32" else "float32"
    given = {"model": "m", "replicas.gpus": gpus}
    for config in (read_arguments(given), read_arguments({**given, "engine.dtype": "auto", "reward_dtype": "auto"})):
        assert (config.engine.dtype, config.reward_dtype, config.engine.kv_cache_bytes) == (dtype, dtype, 2**30)
    asked = read_arguments({**given, "engine.dtype": other, "reward_dtype": other})
    assert (asked.engine.dtype, asked.reward_dtype) == (other, other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"serve\.model: is required"),
        ({"modle": "x"}, r"^modle=x: serve\.modle: no such key; did you mean 'model'\?"),
        ({"model": "x", "replicas.count": "two"}, r"^replicas\.count=two: .* must be a valid integer, not 'two'"),
        ({"model": "x", "replicas": {"count": 3, "most": 2}}, r"replicas\.most 2 is below replicas\.count 3"),
        ({"model": "x", "limits.queued": "0"}, r"limits\.queued: must be greater than or equal to 1, not 0"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_arguments(arguments)


def test_folders_are_called_like_their_runs() -> None:
    assert named_folders("runs/quickstart/ppo/model", "model") == {"ppo": "runs/quickstart/ppo/model"}
    assert named_folders("/models/ziya", "model") == {"ziya": "/models/ziya"}
    assert named_folders("a=runs/x/model, b=runs/y/model", "model") == {"a": "runs/x/model", "b": "runs/y/model"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=", r"^model=a=: 'a=' is not \[NAME=\]DIR"),
        ("", r"is not \[NAME=\]DIR"),
        ("runs/x/ppo/model,runs/y/ppo/model", r"'ppo' is named twice"),
    ],
)
def test_bad_folders(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        named_folders(text, "model")
