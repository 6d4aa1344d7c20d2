"""What a run leaves behind: a folder that Transformers and vLLM use as its chat format wants."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_formats import CHATML_TOKENS, LLAMA31, LLAMA_TOKENS, byte_tokenizer, chat, tiny_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from actors.modeling.models import load_causal_lm, save_pretrained
from configs.errors import ConfigError
from data.chat.config import ChatConfig
from data.chat.templates import CHATML
from trainers.runs.export import export_model, load_chat_tokenizer, require_model


def exported(start: Path, out: Path, chat_settings: ChatConfig | None = None) -> Path:
    trained = load_causal_lm(str(start), torch.float32)
    tokenizer = load_chat_tokenizer(start, chat_settings or ChatConfig())
    export_model(out, tokenizer, lambda aside: save_pretrained(trained, trained.state_dict(), aside))
    return out


def test_an_export_ends_with_any_of_its_ends(tmp_path: Path) -> None:
    start = tiny_model(byte_tokenizer(CHATML_TOKENS, CHATML, "<|endoftext|>"), tmp_path / "start", eos_token_id=9)
    out = exported(start, tmp_path / "out")
    assert GenerationConfig.from_pretrained(out).eos_token_id == [2, 0, 9]
    assert AutoModelForCausalLM.from_pretrained(out).generation_config.eos_token_id == [2, 0, 9]
    told = AutoTokenizer.from_pretrained(out)
    assert (told.chat_template, told.eos_token, told.pad_token) == (CHATML, "<|endoftext|>", None)


def test_sampling_settings_without_do_sample_are_made_valid(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = byte_tokenizer(CHATML_TOKENS, CHATML, "<|im_end|>")
    start = tiny_model(tokenizer, tmp_path / "start", eos_token_id=2, temperature=0.9, top_p=0.6)
    found = GenerationConfig.from_pretrained(exported(start, tmp_path / "out"))
    assert (found.do_sample, found.temperature, found.top_p) == (True, 0.9, 0.6)
    assert "has sampling parameters but no do_sample; it is set to true" in caplog.text


def test_settings_that_stay_invalid_are_reduced_to_ids(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = byte_tokenizer(CHATML_TOKENS, CHATML, "<|im_end|>")
    start = tiny_model(tokenizer, tmp_path / "start", eos_token_id=2, length_penalty=0.5)
    found = GenerationConfig.from_pretrained(exported(start, tmp_path / "out"))
    assert (found.eos_token_id, found.length_penalty) == ([2], None)
    assert "keeps token ids only" in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": 0.0},
        {"top_p": 2.0},
        {"top_k": 5.5},
        {"repetition_penalty": "1.1"},
        {"min_p": float("nan")},
    ],
)
def test_numbers_that_no_engine_samples_by_are_not_exported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wrong: dict[str, Any]
) -> None:
    start = tiny_model(byte_tokenizer(CHATML_TOKENS, CHATML, "<|im_end|>"), tmp_path / "start", eos_token_id=2)
    (start / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, "do_sample": True, **wrong}))
    assert not refusal(start)
    found = json.loads((exported(start, tmp_path / "out") / "generation_config.json").read_text("utf-8"))
    assert set(found) == {"eos_token_id", "transformers_version"}
    assert f"is not valid: {'do_sample is true and ' * (0.0 in wrong.values())}{next(iter(wrong))} is" in caplog.text


ODD = st.sampled_from(
    [None, -1, 0, 1, 7, 99_999, 0.0, 0.5, -1.0, True, False, "2", "", "hybrid", [], [2, -1], {"a": 1}]
)
NAMES = (
    *("bos_token_id", "eos_token_id", "pad_token_id", "temperature", "top_p", "top_k", "do_sample", "num_beams"),
    *("num_return_sequences", "max_length", "max_new_tokens", "early_stopping", "length_penalty", "unknown"),
    *("repetition_penalty", "cache_implementation", "suppress_tokens", "transformers_version"),
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(NAMES), ODD, max_size=4))
def test_whatever_generation_settings_a_model_has_they_are_refused_at_the_start_or_exported(
    tmp_path: Path, odd: dict[str, Any]
) -> None:
    start = tmp_path / "start"
    if not start.exists():
        tiny_model(byte_tokenizer(CHATML_TOKENS, CHATML, "<|im_end|>"), start, eos_token_id=2)
    (start / "generation_config.json").write_text(json.dumps(odd))
    if refused := refusal(start):
        assert re.fullmatch(r".*generation_config\.json.*", refused)
        return
    assert 2 in GenerationConfig.from_pretrained(exported(start, tmp_path / "out")).eos_token_id
    assert not refusal(tmp_path / "out")


def refusal(folder: Path) -> str:
    """Why a stage refuses to start from the folder; empty if it does not."""
    try:
        require_model(folder, 1, "tokens", "model")
        load_chat_tokenizer(folder, ChatConfig())
    except ConfigError as error:
        return str(error)
    return ""


def test_a_template_with_arguments_is_exported(tmp_path: Path) -> None:
    start = tiny_model(
        byte_tokenizer(LLAMA_TOKENS, LLAMA31, "<|end_of_text|>", "<|begin_of_text|>"), tmp_path / "start"
    )
    with pytest.raises(ConfigError, match="writes today's date"):
        load_chat_tokenizer(start, ChatConfig())
    out = exported(start, tmp_path / "out", ChatConfig(arguments={"date_string": "26 Jul 2024"}))
    text = AutoTokenizer.from_pretrained(out).apply_chat_template(chat("头痛"), tokenize=False)
    assert "Today Date: 26 Jul 2024" in text
    load_chat_tokenizer(out, ChatConfig())


def test_a_folder_without_template_is_refused_by_setting(tmp_path: Path) -> None:
    start = tiny_model(byte_tokenizer(["<s>", "</s>"], None, "</s>", "<s>"), tmp_path / "start")
    with pytest.raises(ConfigError, match="start: the tokenizer has no chat template; set chat.template"):
        load_chat_tokenizer(start, ChatConfig())
    out = exported(start, tmp_path / "out", ChatConfig(template="chimed"))
    text = AutoTokenizer.from_pretrained(out).apply_chat_template(chat("头痛", "多休息"), tokenize=False)
    assert text == "[human]:头痛\n[bot]:多休息</s>"
