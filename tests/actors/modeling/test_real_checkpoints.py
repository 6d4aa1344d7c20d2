"""Real checkpoints: $CHIMED_REAL_MODELS has `qwen05` (Qwen2.5-Coder-0.5B-Instruct) and `gemma270` (Gemma 3 270M)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from actors.config import EngineConfig
from actors.inference.engine import Engine
from actors.modeling.models import load_causal_lm
from actors.modeling.packed import PackedBatch
from actors.modeling.packed_models import PackedLM
from actors.modeling.selfcheck import plain_logprobs
from data.chat import chat_ends, chat_format, encode_chat, encode_prompt
from data.tokenizer.hf_tokenizer import read_tokenizer

pytestmark = pytest.mark.real

TEXT = "患者三天前受凉后出现咳嗽、咳痰，痰白黏，伴低热，无胸痛及呼吸困难。查体：咽部充血，双肺呼吸音粗。"
CHAT = [
    {"role": "user", "content": "咳嗽三天，痰白，该怎么办？"},
    {"role": "assistant", "content": "多喝水，注意休息；若发热超过三天请就医。"},
    {"role": "user", "content": "需要吃抗生素吗？"},
    {"role": "assistant", "content": "多数急性支气管炎由病毒引起，一般不需要。"},
]


def checkpoint(name: str) -> Path:
    folder = Path(os.environ.get("CHIMED_REAL_MODELS", "")) / name
    if not os.environ.get("CHIMED_REAL_MODELS") or not folder.is_dir():
        pytest.skip(f"there is no checkpoint {name} in $CHIMED_REAL_MODELS")
    return folder


def sequences(tokenizer: Any, lengths: tuple[int, ...]) -> list[list[int]]:
    ids = tokenizer.encode(TEXT * (1 + max(lengths) // 20), add_special_tokens=False)
    return [ids[start : start + length] for start, length in enumerate(lengths)]


def packed_and_plain(folder: Path, lengths: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of all tokens but each first one, in fp32."""
    rows = sequences(read_tokenizer(folder), lengths)
    with torch.no_grad():
        packed = PackedLM(load_causal_lm(str(folder), torch.float32).eval())(PackedBatch.of(rows))[0]
        plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        return packed, torch.cat([plain_logprobs(plain, torch.tensor(row)) for row in rows])


def test_qwen_packed_is_qwen() -> None:
    packed, plain = packed_and_plain(checkpoint("qwen05"), (150, 9, 64))
    torch.testing.assert_close(packed, plain, rtol=0, atol=2e-4)


def test_gemma_packed_is_gemma_beyond_its_window() -> None:
    packed, plain = packed_and_plain(checkpoint("gemma270"), (700, 30))
    torch.testing.assert_close(packed, plain, rtol=0, atol=1e-3)


def test_an_engine_computes_what_gemma_packed_does_beyond_its_window() -> None:
    folder = checkpoint("gemma270")
    rows = sequences(read_tokenizer(folder), (620, 40))
    with torch.no_grad():
        packed = PackedLM(load_causal_lm(str(folder), torch.float32).eval())(PackedBatch.of(rows))[0]
    engine = Engine(str(folder), EngineConfig(max_model_len=768, max_concurrent=2, kv_cache_bytes=2**28))
    scores = torch.tensor([score for row in engine.score(rows) for score in row])
    engine.close()
    torch.testing.assert_close(scores, packed, rtol=0, atol=2e-3)


def test_qwens_chat_format_is_its_own_template() -> None:
    folder = checkpoint("qwen05")
    tokenizer = read_tokenizer(folder)
    ids, mask = encode_chat(tokenizer, CHAT)
    assert ids == tokenizer.apply_chat_template(CHAT, tokenize=True, return_dict=False)
    prompt = encode_prompt(tokenizer, CHAT[:3])
    assert prompt == tokenizer.apply_chat_template(
        CHAT[:3], tokenize=True, add_generation_prompt=True, return_dict=False
    )
    answers = "".join(f"{turn['content']}<|im_end|>" for turn in CHAT if turn["role"] == "assistant")
    assert tokenizer.decode([token for token, trained in zip(ids, mask, strict=True) if trained]) == answers
    assert {tokenizer.convert_ids_to_tokens(end) for end in chat_ends(tokenizer, folder)} == {
        "<|im_end|>",
        "<|endoftext|>",
    }
    assert "<|im_start|>" in chat_format(tokenizer).marks
