from __future__ import annotations

from pathlib import Path

import pytest
from chat_formats import CHATML_TOKENS, LLAMA_TOKENS, byte_tokenizer, chat, qwen3
from pydantic import ValidationError

from configs.errors import ConfigError
from data.chat import apply_settings, chat_format, encode_prompt
from data.chat.config import ChatConfig
from data.chat.templates import CHATML, NAMED, with_arguments


@pytest.mark.parametrize(
    ("name", "tokens"), [("chatml", CHATML_TOKENS), ("llama3", LLAMA_TOKENS), ("chimed", ("</s>",))]
)
def test_named_templates_can_be_trained(name: str, tokens: tuple[str, ...]) -> None:
    tokenizer = byte_tokenizer(tokens, None, tokens[0], tokens[0])
    apply_settings(tokenizer, ChatConfig(template=name))
    assert tokenizer.chat_template == NAMED[name]
    assert chat_format(tokenizer).ends


def test_a_template_file_replaces_the_folders(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(CHATML_TOKENS, "{{ messages }}", "<|im_end|>")
    (tmp_path / "mine.jinja").write_text(CHATML, "utf-8")
    apply_settings(tokenizer, ChatConfig(template=str(tmp_path / "mine.jinja")))
    assert tokenizer.chat_template == CHATML
    with pytest.raises(
        ConfigError, match=r"chat.template none.jinja: is neither a named template \(chimed, .* nor a file"
    ):
        apply_settings(tokenizer, ChatConfig(template="none.jinja"))


def test_arguments_become_part_of_the_template() -> None:
    tokenizer, plain = qwen3(), qwen3()
    apply_settings(tokenizer, ChatConfig(arguments={"enable_thinking": False}))
    told = plain.apply_chat_template(chat("头痛"), add_generation_prompt=True, return_dict=False, enable_thinking=False)
    assert encode_prompt(tokenizer, chat("头痛")) == told
    apply_settings(tokenizer, ChatConfig(arguments={"enable_thinking": True}))  # as a later stage would
    assert encode_prompt(tokenizer, chat("头痛")) == encode_prompt(plain, chat("头痛"))
    assert tokenizer.chat_template.count("set enable_thinking") == 1


def test_arguments_keep_their_values() -> None:
    values = {"a": "quote \" and ' and \\ and\nline 🙂", "b": 3, "c": -1.5, "d": True}
    body = "{{ [a, b, c, d] | tojson }}"
    tokenizer = byte_tokenizer(CHATML_TOKENS, with_arguments(body, values), "<|im_end|>")
    direct = byte_tokenizer(CHATML_TOKENS, body, "<|im_end|>")
    told = direct.apply_chat_template(chat("x"), tokenize=False, **values)
    assert tokenizer.apply_chat_template(chat("x"), tokenize=False) == told


def test_an_argument_that_does_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="chat.arguments.date: the chat template has no variable date"):
        with_arguments(CHATML, {"date": "today"})
    with pytest.raises(ValidationError, match="arguments.messages: is not a variable"):
        ChatConfig(arguments={"messages": "x"})
    with pytest.raises(ConfigError, match="no chat template"):
        apply_settings(byte_tokenizer(CHATML_TOKENS, None, "<|im_end|>"), ChatConfig(arguments={"date": "x"}))
