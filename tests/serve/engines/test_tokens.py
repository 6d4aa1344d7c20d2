from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.model_folder.folders import ModelFolder
from serve.engines.tokens import Tokens
from serve.replies import EngineRequest, Refusal, Whole


@pytest.fixture
def tokens(make_model: Callable[..., Path]) -> Tokens:
    return Tokens(ModelFolder(make_model("a")), 256)


def answer(tokenizer: Tokens, kind: str, **body: object) -> dict[str, object]:
    reply = tokenizer.answer(EngineRequest(kind, body))  # type: ignore[arg-type]
    assert isinstance(reply, Whole)
    return json.loads(reply.json)  # type: ignore[no-any-return]


def test_there_and_back(tokens: Tokens) -> None:
    encoded = answer(tokens, "tokenize", prompt="头痛怎么办", return_token_strs=True)
    assert (encoded["count"], encoded["max_model_len"]) == (len(encoded["tokens"]), 256)  # type: ignore[arg-type]
    assert len(encoded["token_strs"]) == encoded["count"]  # type: ignore[arg-type]
    assert answer(tokens, "detokenize", tokens=encoded["tokens"]) == {"prompt": "头痛怎么办"}


def test_a_chat_is_rendered(tokens: Tokens) -> None:
    chat = answer(tokens, "tokenize", messages=[{"role": "user", "content": "头痛"}])
    assert answer(tokens, "detokenize", tokens=chat["tokens"]) == {"prompt": "[human]:头痛\n[bot]:"}


def test_a_finished_chat_is_rendered_to_its_end(tokens: Tokens) -> None:
    turns = [{"role": "user", "content": "头痛"}, {"role": "assistant", "content": "休息"}]
    finished = answer(tokens, "tokenize", messages=turns, add_generation_prompt=False)
    assert answer(tokens, "detokenize", tokens=finished["tokens"]) == {"prompt": "[human]:头痛\n[bot]:休息</s>"}


def test_a_prompt_gets_the_tokenizers_own_tokens_as_completions_do(make_model: Callable[..., Path]) -> None:
    from tokenizers.processors import TemplateProcessing

    folder = ModelFolder(make_model("bos"))
    end = folder.tokenizer.eos_token
    folder.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{end} $A", special_tokens=[(end, folder.tokenizer.eos_token_id)]
    )
    tokens = Tokens(folder, 256)
    bare = answer(tokens, "tokenize", prompt="头痛", add_special_tokens=False)["tokens"]
    assert answer(tokens, "tokenize", prompt="头痛")["tokens"] == [folder.tokenizer.eos_token_id, *bare]  # type: ignore[misc]


def test_a_token_outside_the_vocabulary_is_refused(tokens: Tokens) -> None:
    reply = tokens.answer(EngineRequest("detokenize", {"tokens": [1, 10**6]}))
    assert isinstance(reply, Refusal)
    assert reply.message.startswith("the token 1000000 is not in the vocabulary, which has ")


def test_too_long_says_both_numbers(tokens: Tokens) -> None:
    chat = [{"role": "user", "content": "头痛" * 300}]
    count = answer(tokens, "tokenize", messages=chat)["count"]
    for kind, prompt, longest in (
        ("completions", [[1] * 300, [1]], 300),
        ("completions", [1] * 257, 257),
        ("chat", chat, count),
    ):
        refusal = tokens.too_long(EngineRequest(kind, {"messages" if kind == "chat" else "prompt": prompt}))  # type: ignore[arg-type]
        assert (
            refusal.message
            == f"The prompt has {longest} tokens and the context is 256, including the response: shorten it."
        )
