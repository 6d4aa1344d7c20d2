"""Every reader of config.json names the file, what is wrong, and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.model_folder.config_json import read_config, read_shape, transformers_config
from actors.sizing.shape import shape_of
from configs.errors import ConfigError

READERS = (read_config, read_shape)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "reward.model: no config.json in {folder}; name a folder in Hugging Face format"),
        ("{", "reward.model: {folder}/config.json: not readable as JSON: .*; export the model again"),
        ("[]", "reward.model: {folder}/config.json: is not a JSON object; export the model again"),
    ],
)
def test_a_bad_file_is_refused_alike(
    tmp_path: Path, read: Callable[[Path, str], Any], content: str | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=said.format(folder=tmp_path)) as refused:
        read(tmp_path, "reward.model")
    assert "\n" not in str(refused.value)


def test_all_readers_of_a_folder_agree(make_model: Callable[..., Path]) -> None:
    folder = make_model("config")
    given = read_config(folder, "model")
    assert given == json.loads((folder / "config.json").read_text())
    assert read_shape(folder) == shape_of(given, "here")
    config = transformers_config(folder, "model")
    assert (config.model_type, config.hidden_size) == (given["model_type"], given["hidden_size"])
    assert transformers_config(folder, "model", num_labels=1).num_labels == 1


def test_an_incomplete_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": 8}')
    with pytest.raises(ConfigError, match=r"config\.json: has no intermediate_size"):
        read_shape(tmp_path)


def test_a_config_that_transformers_refuses_names_the_setting_and_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": "two"}')
    with pytest.raises(
        ConfigError, match=rf"policy\.model: {tmp_path}/config\.json: Transformers refuses it: .*layers"
    ):
        transformers_config(tmp_path, "policy.model")
