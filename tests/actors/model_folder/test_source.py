from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hub import Hub

from actors.model_folder.config_json import read_shape
from actors.model_folder.folders import ModelFolder
from actors.model_folder.source import config_dir, model_dir, tokenizer_dir
from configs.errors import ConfigError
from serve.config import named_folders
from trainers.runs.export import load_tokenizer


def test_a_local_folder_wins(
    hub: Hub, copy: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.commit("models", "org/name", copy())
    (tmp_path / "org").mkdir()
    copy("b").rename(tmp_path / "org" / "name")
    monkeypatch.chdir(tmp_path)
    assert model_dir("org/name") == Path("org/name")
    assert hub.requests == []


def test_a_model_of_the_hub_is_a_folder_like_any_other(hub: Hub, copy: Callable[..., Path]) -> None:
    folder = copy()
    (folder / "model.gguf").write_bytes(bytes(10))
    commit = hub.commit("models", "org/name", folder)
    assert read_shape(config_dir("org/name")).layers == 2
    assert load_tokenizer("org/name").eos_token == "</s>"
    assert tokenizer_dir("org/name").name == commit
    assert not any("safetensors" in request for request in hub.requests)  # only what is needed, when it is needed
    model = ModelFolder("org/name", "--model")
    assert model.path.name == commit
    assert model.digest == ModelFolder(folder).digest
    assert not any("gguf" in request for request in hub.requests)


def test_an_unknown_architecture_is_refused_before_its_weights_are_downloaded(
    hub: Hub, copy: Callable[..., Path]
) -> None:
    hub.commit("models", "org/name", copy(model_type="llama9"))
    with pytest.raises(ConfigError, match="reward.model: .*'llama9' is unknown"):
        model_dir("org/name", "reward.model")
    assert not any("safetensors" in request for request in hub.requests)


def test_modelscope_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHIMED_HUB", "modelscope")
    with pytest.raises(ConfigError, match="CHIMED_HUB=modelscope needs the package: pip install modelscope"):
        model_dir("org/name")
    monkeypatch.setenv("CHIMED_HUB", "elsewhere")
    with pytest.raises(ConfigError, match="CHIMED_HUB=elsewhere: is no hub"):
        model_dir("org/name")


def test_an_endpoints_model_is_called_like_its_repository() -> None:
    assert named_folders("org/name@v1,x=org/other", "model") == {"name": "org/name@v1", "x": "org/other"}
