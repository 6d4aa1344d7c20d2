from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from copy import deepcopy as copy_of
from pathlib import Path
from typing import Any

import pytest
import torch
from hub import Hub
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from actors.model_folder.folders import ModelFolder
from actors.model_folder.source import config_dir, model_dir, tokenizer_dir
from configs.errors import ConfigError
from data.hub import pinned


@pytest.fixture
def adapter(copy: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Writes a random adapter of a copy of a model; `base` is what it calls that."""

    def make(base: str | None = None, task: str = "CAUSAL_LM", name: str = "adapter", rows: int = 0) -> Path:
        folder = copy() if not (tmp_path / "copy-a").exists() else tmp_path / "copy-a"
        auto = AutoModelForCausalLM if task == "CAUSAL_LM" else AutoModelForSequenceClassification
        model = auto.from_pretrained(folder, **({} if task == "CAUSAL_LM" else {"num_labels": 1}))
        if rows:
            model.resize_token_embeddings(rows, mean_resizing=False)
        torch.manual_seed(3)
        settings: Any = LoraConfig(
            r=4, target_modules=["q_proj", "down_proj"], task_type=task, init_lora_weights=False,
            modules_to_save=["embed_tokens"] if rows else None,
        )  # fmt: skip
        get_peft_model(model, settings).save_pretrained(tmp_path / name)
        path = tmp_path / name / "adapter_config.json"
        written = {**json.loads(path.read_text()), "base_model_name_or_path": base or str(folder)}
        path.write_text(json.dumps(written))
        return tmp_path / name

    return make


def equal(folder: Path, expected: torch.nn.Module) -> bool:
    loaded = type(expected).from_pretrained(folder).state_dict()  # type: ignore[attr-defined]
    return all(torch.equal(loaded[name], tensor) for name, tensor in expected.state_dict().items())


def test_the_merge_is_pefts(adapter: Callable[..., Path], runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = adapter()
    base = config_dir(folder)
    expected = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).merge_and_unload()
    merged = ModelFolder(folder)
    assert merged.path.parent == runs / ".merged"
    assert equal(merged.path, expected)
    assert merged.tokenizer.get_vocab() == ModelFolder(base).tokenizer.get_vocab()
    assert tokenizer_dir(folder) == base
    assert "model: merging the adapter" in caplog.text
    caplog.clear()
    assert model_dir(folder) == merged.path
    assert caplog.messages == []  # once


def test_another_adapter_or_base_is_merged_anew(adapter: Callable[..., Path]) -> None:
    folder = adapter()
    first = model_dir(folder)
    base = config_dir(folder)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "rope_theta": 5000.0}))
    assert model_dir(folder) != first


def test_a_scorers_adapter_keeps_its_head(adapter: Callable[..., Path]) -> None:
    folder = adapter(task="SEQ_CLS")
    base = AutoModelForSequenceClassification.from_pretrained(config_dir(folder), num_labels=1)
    expected = PeftModel.from_pretrained(base, folder).merge_and_unload()
    merged = ModelFolder(folder, "reward.model")
    assert merged.is_reward_model
    assert equal(merged.path, expected)


def test_an_adapter_with_new_tokens_brings_its_embedding(adapter: Callable[..., Path]) -> None:
    folder = adapter(rows=300)
    merged = model_dir(folder)
    assert json.loads((merged / "config.json").read_text())["vocab_size"] == 300


def test_base_and_adapter_may_be_of_the_hub(
    hub: Hub, adapter: Callable[..., Path], make_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = adapter(base="org/base")
    commit = hub.commit("models", "org/base", tmp_path / "copy-a")
    hub.commit("models", "org/adapter", folder)
    merged = model_dir("org/adapter")
    assert config_dir("org/adapter").name == commit
    digest = ModelFolder(merged).digest
    shutil.copytree(make_model("b", seed=1), tmp_path / "copy-a", dirs_exist_ok=True)
    hub.commit("models", "org/base", tmp_path / "copy-a")
    pinned.cache_clear()
    assert model_dir("org/adapter") == merged  # of the base's commit at the first merge
    assert ModelFolder(merged).digest == digest


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"base_model_name_or_path": "/gone/base"},
            "model: base model of the adapter .*: there is no folder /gone/base",
        ),
        ({"base_model_name_or_path": None}, "has no base_model_name_or_path"),
        ({"task_type": "TOKEN_CLS"}, "is for TOKEN_CLS; name one for CAUSAL_LM or SEQ_CLS"),
        ({"r": 8}, "cannot be merged into"),
    ],
)
def test_an_adapter_that_cannot_be_merged_is_one_line(
    adapter: Callable[..., Path], change: dict[str, Any], said: str, runs: Path
) -> None:
    folder = adapter()
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ConfigError, match=said):
        model_dir(folder)
    assert not [one for one in runs.rglob("*") if one.suffix not in (".lock", "")]


def test_an_adapters_tokenizer_replaces_the_bases_and_must_fit(adapter: Callable[..., Path], tokenizer: Any) -> None:
    larger = copy_of(tokenizer)
    larger.add_tokens(["新词"])
    folder = adapter(rows=300)
    larger.save_pretrained(folder)
    assert "新词" in ModelFolder(folder).tokenizer.get_vocab()
    plain = adapter(name="plain")
    larger.save_pretrained(plain)
    with pytest.raises(ConfigError, match="model: the adapter .*plain: the tokenizer has 291 tokens and the model 290"):
        model_dir(plain)


def test_an_adapter_without_weights_is_one_line(adapter: Callable[..., Path]) -> None:
    folder = adapter()
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ConfigError, match="no adapter_model.safetensors or adapter_model.bin in the adapter"):
        model_dir(folder)


def test_a_model_with_an_adapter_beside_it_is_refused(adapter: Callable[..., Path]) -> None:
    folder = adapter()
    shutil.copy(folder / "adapter_config.json", config_dir(folder))
    with pytest.raises(ConfigError, match="has both a model and a PEFT adapter"):
        model_dir(config_dir(folder))
