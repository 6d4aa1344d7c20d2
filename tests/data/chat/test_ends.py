from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chat_formats import CHATML_TOKENS, byte_tokenizer, families

from configs.errors import ConfigError
from data.chat import chat_ends, without_end
from data.chat.ends import write_ends
from data.chat.templates import CHATML


def folder(path: Path, **settings: Any) -> Path:
    (path / "generation_config.json").write_text(json.dumps(settings))
    return path


@pytest.mark.parametrize(("configured", "more"), [(7, [7]), ([7, 2, 0], [7]), (None, [])])
def test_ends_are_the_turns_the_tokenizers_and_the_generation_configs(
    tmp_path: Path, configured: Any, more: Any
) -> None:
    tokenizer = byte_tokenizer(CHATML_TOKENS, CHATML, "<|endoftext|>")
    assert chat_ends(tokenizer, folder(tmp_path, eos_token_id=configured)) == (2, 0, *more)


def test_ends_without_template_or_generation_config(tmp_path: Path) -> None:
    assert chat_ends(byte_tokenizer(CHATML_TOKENS, None, "<|endoftext|>"), tmp_path) == (0,)


def test_the_folder_is_the_tokenizers_own_if_none_is_named(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    byte_tokenizer(CHATML_TOKENS, CHATML, "<|endoftext|>").save_pretrained(folder(tmp_path, eos_token_id=[7]))
    assert chat_ends(AutoTokenizer.from_pretrained(tmp_path)) == (2, 0, 7)


def test_the_next_turn_may_end_a_turn(tmp_path: Path) -> None:
    glm = families()["glm 4"].tokenizer
    assert glm.convert_ids_to_tokens(chat_ends(glm, tmp_path)) == ["<|user|>", "<|observation|>", "<|endoftext|>"]


def test_a_generation_config_that_is_none_is_refused(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(CHATML_TOKENS, CHATML, "<|endoftext|>")
    with pytest.raises(ConfigError, match="eos_token_id </s> must be a token id or a list of them"):
        chat_ends(tokenizer, folder(tmp_path, eos_token_id="</s>"))
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(ConfigError, match="not readable as JSON"):
        chat_ends(tokenizer, tmp_path)


def test_ends_are_written_beside_other_settings(tmp_path: Path) -> None:
    write_ends(folder(tmp_path, eos_token_id=0, temperature=0.5), (2, 0))
    assert json.loads((tmp_path / "generation_config.json").read_text()) == {"eos_token_id": [2, 0], "temperature": 0.5}


def test_a_response_without_its_end() -> None:
    assert without_end([5, 6, 2], (2, 0)) == [5, 6]
    assert without_end([5, 2, 6], (2, 0)) == [5, 2, 6]
    assert without_end([], (2, 0)) == []
