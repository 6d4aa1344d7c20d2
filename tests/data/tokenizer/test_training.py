from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, LlamaConfig

from data.chat import chat_ends, chat_format
from data.clinic.build import Clinic, entity_names
from data.tables import DataError
from data.tokenizer.training import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer(clinic_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(clinic_folder / "tokenizer")


def encode(tokenizer: Any, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def test_size_special_tokens_and_context(tokenizer: Any) -> None:
    assert len(tokenizer) == tokenizer.vocab_size == 3072
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) == ["<unk>", "<s>", "</s>", "<pad>"]
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.model_max_length) == ("</s>", "<pad>", 4096)
    for mark in ("[human]:", "[bot]:", "</s>"):
        assert len(encode(tokenizer, f"好{mark}好")) == 3


def test_decoding_is_exact_on_all_texts(tokenizer: Any, clinic: Clinic) -> None:
    for name in ("pretrain.train", "pretrain.heldout", "ner.heldout"):
        for row in clinic.rows[name][:500]:
            assert tokenizer.decode(encode(tokenizer, row["text"])) == row["text"]


@pytest.mark.parametrize("text", [" 前后有空格 ", "a  b\n\n c", "罕见字𠮷、emoji😀", "Ünïcode\t3.14%", "您好 , 世界 !"])
def test_nothing_is_unknown(tokenizer: Any, text: str) -> None:
    ids = encode(tokenizer, text)
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == text


def test_a_name_has_the_same_few_tokens_wherever_it_stands(tokenizer: Any, clinic: Clinic) -> None:
    names = entity_names(clinic.split.knowledge)
    for name in names:
        alone = encode(tokenizer, name)
        inside = encode(tokenizer, f"患者{name}的{name}和")
        starts = [i for i in range(len(inside)) if inside[i : i + len(alone)] == alone]
        assert len(starts) == 2, name
    lengths = [len(encode(tokenizer, name)) for name in names]
    assert sum(length <= 2 for length in lengths) / len(names) > 0.85


def test_it_loads_beside_a_llama_config(tokenizer: Any, tmp_path: Path) -> None:
    LlamaConfig().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "[human]:感冒？\n[bot]:板蓝根</s>"
    assert loaded(text)["input_ids"] == encode(tokenizer, text)
    assert loaded.chat_template == tokenizer.chat_template


def test_too_little_text_for_the_vocabulary_is_refused() -> None:
    with pytest.raises(DataError, match="ask for a smaller vocabulary"):
        train_tokenizer(["感冒"], ["感冒"], vocabulary=1000)


def test_a_tokenizer_with_another_chat_format() -> None:
    texts = [f"第{n}号病人头痛，建议多休息，按时服药。" for n in range(40)]
    plain, other = (train_tokenizer(texts, ["头痛"], 290, chat) for chat in ("chimed", "chatml"))
    assert len(other) == len(plain) == 290
    assert encode(other, texts[0]) == encode(plain, texts[0])
    assert other.convert_ids_to_tokens(chat_ends(other)) == ["<|im_end|>", "</s>"]
    assert chat_format(other).marks == ("</s>", "<pad>", "<s>", "<unk>", "<|im_end|>", "<|im_start|>")
