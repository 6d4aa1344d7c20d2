from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.model_folder.folders import ModelFolder
from configs.errors import ConfigError


@pytest.fixture
def copy(make_model: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """A model folder of the test's own, with settings of its config changed."""

    def make(**changes: Any) -> Path:
        folder = tmp_path / "copy"
        shutil.copytree(make_model("a"), folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
        return folder

    return make


def test_describes_the_model(make_model: Callable[..., Path]) -> None:
    folder = ModelFolder(make_model("a"))
    assert (folder.context, folder.is_reward_model) == (256, False)
    assert folder.tokenizer.decode(folder.end_ids) == "</s>"
    assert ModelFolder(make_model("reward", seed=5, reward=True)).is_reward_model


def test_architectures_are_equal_for_other_weights_only(make_model: Callable[..., Path]) -> None:
    own = ModelFolder(make_model("a")).architecture()
    assert own == ModelFolder(make_model("b", seed=1)).architecture()
    assert own != ModelFolder(make_model("deep", num_hidden_layers=3)).architecture()
    assert own != ModelFolder(make_model("base", rope_theta=5000.0)).architecture()  # no tensor tells these apart
    assert "model.embed_tokens.weight" in dict(own.tensors)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: shutil.rmtree(folder), "there is no folder"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "not readable as JSON"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"no weights \(\*\.safetensors"),
    ],
)
def test_a_folder_that_is_no_model_is_one_line(
    copy: Callable[..., Path], spoil: Callable[[Path], Any], said: str
) -> None:
    folder = copy()
    spoil(folder)
    with pytest.raises(ConfigError, match=said):
        ModelFolder(folder)


def test_weights_that_are_cut_off_are_one_line(copy: Callable[..., Path]) -> None:
    folder = copy()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ConfigError, match="not readable as weights"):
        ModelFolder(folder).architecture()


def test_a_tokenizer_that_does_not_fit_is_refused(copy: Callable[..., Path]) -> None:
    folder = ModelFolder(copy(vocab_size=100))
    with pytest.raises(ConfigError, match="the tokenizer has 290 tokens and the model 100"):
        _ = folder.tokenizer
    (folder.path / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match="no usable tokenizer: there is no vocabulary"):
        _ = ModelFolder(folder.path).tokenizer
    (folder.path / "tokenizer_config.json").unlink()
    with pytest.raises(ConfigError, match=r"has no tokenizer \(tokenizer.json, .*copy the tokenizer's files"):
        _ = ModelFolder(folder.path).tokenizer


def test_a_missing_setting_is_named(copy: Callable[..., Path]) -> None:
    folder = copy()
    config = json.loads((folder / "config.json").read_text())
    del config["max_position_embeddings"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="has no max_position_embeddings"):
        _ = ModelFolder(folder).context
