"""What a run leaves behind: a folder that Transformers and vLLM use as its chat format wants."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from chat_formats import CHATML_TOKENS, LLAMA31, LLAMA_TOKENS, byte_tokenizer, chat, tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from actors.models import load_causal_lm, save_pretrained
from configs.errors import ConfigError
from data.chat.config import ChatConfig
from data.chat.templates import CHATML
from trainers.export import export_model, load_chat_tokenizer


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


def test_sampling_settings_without_do_sample_are_made_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = byte_tokenizer(CHATML_TOKENS, CHATML, "<|im_end|>")
    start = tiny_model(tokenizer, tmp_path / "start", eos_token_id=2, temperature=0.9, top_p=0.6)
    settings = GenerationConfig.from_pretrained(exported(start, tmp_path / "out"))
    assert (settings.do_sample, settings.temperature, settings.top_p) == (True, 0.9, 0.6)
    assert "has sampling parameters but no do_sample; it is set to true" in capsys.readouterr().out


def test_settings_that_stay_invalid_are_reduced_to_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = byte_tokenizer(CHATML_TOKENS, CHATML, "<|im_end|>")
    start = tiny_model(tokenizer, tmp_path / "start", eos_token_id=2, length_penalty=0.5)
    settings = GenerationConfig.from_pretrained(exported(start, tmp_path / "out"))
    assert (settings.eos_token_id, settings.length_penalty) == ([2], None)
    assert "keeps token ids only" in capsys.readouterr().out


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
