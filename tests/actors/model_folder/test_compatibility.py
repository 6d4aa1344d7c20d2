from __future__ import annotations

import pytest
from chat_formats import CHATML_TOKENS, byte_tokenizer, families, qwen3

from actors.model_folder.compatibility import require_same_format
from configs.errors import ConfigError
from data.chat.templates import CHATML


def test_models_of_one_format_go_together() -> None:
    require_same_format("a", families()["chatml"].tokenizer, "b", families()["marked"].tokenizer)


def test_another_vocabulary_or_format_is_refused() -> None:
    with pytest.raises(ConfigError, match="a and b have different vocabularies"):
        require_same_format("a", families()["chatml"].tokenizer, "b", families()["gemma"].tokenizer)
    same_vocabulary = byte_tokenizer(CHATML_TOKENS, CHATML, "<|im_end|>", plain=["<think>", "</think>"])
    with pytest.raises(ConfigError, match="a and b have different chat formats"):
        require_same_format("a", same_vocabulary, "b", qwen3())
