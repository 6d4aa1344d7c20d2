from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, LlamaForSequenceClassification

from actors.model_folder.checks import require_one_output, require_rows, require_trainable
from actors.model_folder.folders import ModelFolder
from actors.model_folder.source import model_dir
from configs.errors import ConfigError
from data.tokenizer.hf_tokenizer import read_tokenizer
from trainers.runs.export import load_tokenizer, require_model


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "llama9"}, "model_type 'llama9' is unknown to Transformers"),
        ({"model_type": None}, "has no model_type, so it is not a Transformers model's; name a model's folder"),
        ({"model_type": "baichuan", "auto_map": {"AutoConfig": "x.Y"}}, r"needs Python code .*there is no trust_remote_code"),
        ({"architectures": ["LlamaModel"]}, "architecture LlamaModel of model_type 'llama' is neither a causal language"),
        ({"num_hidden_layers": "two"}, "Transformers refuses it: .*num_hidden_layers"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_transformers_cannot_load_is_one_line(
    copy: Callable[..., Path], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        model_dir(copy(**changes))


def test_remote_code_that_is_not_needed_is_not_used(copy: Callable[..., Path]) -> None:
    folder = copy(auto_map={"AutoConfig": "configuration_x.XConfig", "AutoModelForCausalLM": "modeling_x.X"})
    assert model_dir(folder) == folder
    assert read_tokenizer(folder).eos_token == "</s>"


def test_quantized_weights_are_not_trained_but_served(copy: Callable[..., Path]) -> None:
    folder = copy(quantization_config={"quant_method": "awq", "bits": 4})
    with pytest.raises(ConfigError, match=r"is quantized \(awq\).*name the unquantized model"):
        require_model(folder, 1, "")
    assert ModelFolder(folder).path == folder
    with pytest.raises(ConfigError, match=r"is quantized \(unknown\)"):
        require_trainable({"quantization_config": True}, folder, "model")


def test_a_reward_model_has_one_output(copy: Callable[..., Path], tmp_path: Path) -> None:
    scorer, language = copy("reward", reward=True), copy()
    assert require_model(scorer, 1, "", "reward.model", "scorer") == scorer
    assert require_model(language, 1, "", "critic.model", "either") == language
    with pytest.raises(ConfigError, match="reward.model: .* has no scalar head"):
        require_model(language, 1, "", "reward.model", "scorer")
    with pytest.raises(ConfigError, match="model folder: .* is a reward model; name a language model"):
        require_model(scorer, 1, "")
    config = AutoConfig.from_pretrained(scorer, num_labels=3)
    LlamaForSequenceClassification(config).save_pretrained(tmp_path / "three")
    said = "reward.model: the head of .*three has 3 outputs; one is needed"
    with pytest.raises(ConfigError, match=said):
        require_model(tmp_path / "three", 1, "", "reward.model", "either")
    with pytest.raises(ConfigError, match=said):
        ModelFolder(tmp_path / "three", "reward.model")


def test_the_heads_shape_counts_more_than_the_config(copy: Callable[..., Path]) -> None:
    folder = copy("reward", reward=True, id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1})
    require_one_output(folder, "reward.model")


def test_a_tokenizer_with_more_ids_than_rows_is_refused(copy: Callable[..., Path]) -> None:
    folder = copy(vocab_size=100)
    with pytest.raises(ConfigError, match="the tokenizer has 290 tokens and the model 100"):
        load_tokenizer(folder)
    tokenizer: Any = read_tokenizer(folder)
    require_rows(tokenizer, {"vocab_size": 290}, "model")
    require_rows(tokenizer, {"text_config": {"vocab_size": 400}}, "model")
    require_rows(tokenizer, {}, "model")
    with pytest.raises(ConfigError, match="and the model 289"):
        require_rows(tokenizer, {"text_config": {"vocab_size": 289}}, "model")


def test_a_special_token_that_no_text_uses_needs_no_row(copy: Callable[..., Path]) -> None:
    tokenizer: Any = read_tokenizer(copy())
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    assert len(tokenizer) == 291
    require_rows(tokenizer, {"vocab_size": 290}, "model")
    tokenizer.chat_template = "<image>" + tokenizer.chat_template
    with pytest.raises(ConfigError, match="the tokenizer has 291 tokens and the model 290"):
        require_rows(tokenizer, {"vocab_size": 290}, "model")
    tokenizer.chat_template = None
    tokenizer.pad_token = "<image>"
    with pytest.raises(ConfigError, match="the tokenizer has 291 tokens"):
        require_rows(tokenizer, {"vocab_size": 290}, "model")


@pytest.mark.parametrize(
    ("name", "value"), [("attention_dropout", 1.0), ("resid_pdrop", -0.1), ("attention_dropout", 2)]
)
def test_a_probability_of_dropout_that_is_none_is_refused(tmp_path: Path, name: str, value: float) -> None:
    require_trainable({name: 0.1, "moe_token_dropping": True}, tmp_path, "model")
    with pytest.raises(
        ConfigError, match=rf"model: .*config.json: {name} is {value}; it must be at least 0 and below 1"
    ):
        require_trainable({name: value}, tmp_path, "model")
