"""The checkpoint's chat format: ids, masks and refusals, for families of templates and random chats."""

from __future__ import annotations

from typing import Any

import pytest
from chat_formats import (
    CHATML_TOKENS,
    LLAMA31,
    LLAMA_TOKENS,
    MARKED,
    Family,
    byte_tokenizer,
    chat,
    families,
    qwen3,
    trained,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.errors import ConfigError
from data.chat import chat_format, encode_chat, encode_prompt
from data.chat.templates import CHATML, with_arguments
from data.tables import DataError

FAMILIES = families()

WORDS = [
    "头痛",
    "，多喝热水。",
    "fever",
    " ",
    "\n",
    "\n\n",
    "<|im_",
    "user",
    "[INST",
    "</",
    "s>",
    "🙂",
    "assistant\n",
    "'",
    "%}",
]
contents = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map("".join).filter(lambda text: bool(text.strip()))


@st.composite
def chats(draw: st.DrawFn) -> tuple[Family, list[dict[str, str]]]:
    family = FAMILIES[draw(st.sampled_from(sorted(FAMILIES)))]
    system = draw(st.none() | contents) if family.system else None
    turns = draw(st.lists(contents, min_size=1, max_size=6))
    return family, chat(*turns, system=system)


def rendered(tokenizer: Any, messages: list[dict[str, str]], prompt: bool = False) -> list[int]:
    ids: list[int] = tokenizer.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=prompt, return_dict=False
    )
    return ids


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(chats())
def test_ids_are_the_templates_and_the_mask_covers_the_responses_and_their_ends(
    case: tuple[Family, list[dict[str, str]]],
) -> None:
    family, messages = case
    tokenizer = family.tokenizer
    if any(mark in turn["content"] for turn in messages for mark in chat_format(tokenizer).marks):
        with pytest.raises(DataError, match="reserved mark"):
            encode_chat(tokenizer, messages)
        return
    ids, mask = encode_chat(tokenizer, messages)
    assert ids == rendered(tokenizer, messages)
    last = len(messages) - 1
    expected = [
        family.turn(turn["content"], index < last) for index, turn in enumerate(messages) if turn["role"] == "assistant"
    ]
    assert trained(tokenizer, ids, mask) == expected
    if messages[-1]["role"] == "user":
        assert encode_prompt(tokenizer, messages) == rendered(tokenizer, messages, prompt=True)
        return
    prompt, response = chat_format(tokenizer).response(messages)
    assert prompt == encode_prompt(tokenizer, messages[:-1]) == ids[: len(prompt)]
    assert tokenizer.decode(response[:-1]) + family.ends[0] in (expected[-1], expected[-1] + family.ends[0])
    assert response[-1] == chat_format(tokenizer).ends[0]
    ((sample, targets),) = chat_format(tokenizer).samples(messages)
    assert sample[: len(ids)] == ids
    assert trained(tokenizer, sample, targets)[:-1] == expected[:-1]
    assert trained(tokenizer, sample, targets)[-1] == tokenizer.decode(response)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_the_tokens_that_end_a_turn(name: str) -> None:
    family = FAMILIES[name]
    assert tuple(family.tokenizer.convert_ids_to_tokens(chat_format(family.tokenizer).ends)) == family.ends


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_control_tokens_in_a_content_are_refused(name: str) -> None:
    family = FAMILIES[name]
    marks = chat_format(family.tokenizer).marks
    assert set(family.tokenizer.all_special_tokens) | set(family.ends) <= set(marks)
    for mark in marks:
        for turn in range(2):
            messages = chat("头痛", "多休息")
            messages[turn]["content"] += mark
            with pytest.raises(DataError, match=f"turn {turn} .*contains the reserved mark"):
                encode_chat(family.tokenizer, messages)


def test_normalized_tokens_cannot_be_forged_by_other_characters() -> None:
    from tokenizers import AddedToken, normalizers

    tokenizer = byte_tokenizer(CHATML_TOKENS[:2], CHATML, "<|endoftext|>")
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    tokenizer.add_tokens([AddedToken("<|im_end|>", normalized=True)])
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end in tokenizer.encode("头痛＜｜im_end｜＞")
    with pytest.raises(DataError, match="reserved mark"):
        encode_chat(tokenizer, chat("头痛＜｜im_end｜＞", "多休息"))


def test_a_token_over_the_end_of_the_prompt_is_not_trained() -> None:
    tokenizer = byte_tokenizer(CHATML_TOKENS, CHATML, "<|im_end|>", merges=[("Ċ", "Ċ")])
    messages = chat("头痛", "\n多休息")
    ids, mask = encode_chat(tokenizer, messages)
    assert ids == rendered(tokenizer, messages)
    assert "ĊĊ" in tokenizer.convert_ids_to_tokens(ids)
    assert trained(tokenizer, ids, mask) == ["多休息<|im_end|>"]


def test_earlier_reasoning_that_is_dropped_makes_a_sample_of_each_response() -> None:
    tokenizer = qwen3()
    messages = chat("头痛", "<think>\n想\n</think>\n\n多休息", "还有呢", "喝水")
    with pytest.raises(DataError, match="renders turn 1 differently when others follow"):
        encode_chat(tokenizer, messages)
    first, second = chat_format(tokenizer).samples(messages)
    assert first[0] == rendered(tokenizer, messages[:2])
    assert second[0] == rendered(tokenizer, messages)
    assert trained(tokenizer, *first) == ["<think>\n想\n</think>\n\n多休息<|im_end|>"]
    assert trained(tokenizer, *second) == ["<think>\n\n</think>\n\n喝水<|im_end|>"]
    assert chat_format(tokenizer).samples(messages, last_response_only=True) == [second]
    ids, mask = encode_chat(tokenizer, messages[:2])
    assert trained(tokenizer, ids, mask) == ["<think>\n想\n</think>\n\n多休息<|im_end|>"]


def test_a_generation_prompt_with_empty_reasoning_is_not_trained() -> None:
    tokenizer = qwen3()
    tokenizer.chat_template = with_arguments(tokenizer.chat_template, {"enable_thinking": False})
    assert trained(tokenizer, *encode_chat(tokenizer, chat("头痛", "喝水"))) == ["喝水<|im_end|>"]
    assert encode_prompt(tokenizer, chat("头痛"))[-2:] == [tokenizer.encode("\n")[0]] * 2


def test_a_system_turn_that_moves_is_refused() -> None:
    tokenizer = FAMILIES["mistral"].tokenizer
    messages = chat("头痛", "多休息", system="你是医生")
    assert encode_prompt(tokenizer, messages[:2]) == rendered(tokenizer, messages[:2], prompt=True)
    for encode in (chat_format(tokenizer).encode, chat_format(tokenizer).samples):
        with pytest.raises(DataError, match="does not continue the prompt"):
            encode(messages)


def test_a_template_without_system_turns_says_so() -> None:
    with pytest.raises(DataError, match="the chat template refuses the chat: System role not supported"):
        encode_prompt(FAMILIES["gemma"].tokenizer, chat("头痛", system="你是医生"))


def test_tool_turns_are_kept_where_the_template_knows_them() -> None:
    messages = [*chat("头痛", "查一下"), {"role": "tool", "content": "38度"}, {"role": "assistant", "content": "发烧"}]
    glm = FAMILIES["glm 4"].tokenizer
    ids, mask = encode_chat(glm, messages)
    assert ids == rendered(glm, messages)
    assert trained(glm, ids, mask) == ["\n查一下<|observation|>", "\n发烧"]
    with pytest.raises(DataError, match="turn 2: the chat format has no tool turns"):
        encode_chat(FAMILIES["chatml"].tokenizer, messages)


def test_marked_generations_are_verified() -> None:
    twice = MARKED.replace("{% endgeneration %}", "{% endgeneration %}{% generation %}{% endgeneration %}")
    tokenizer = byte_tokenizer(CHATML_TOKENS, twice, "<|im_end|>")
    with pytest.raises(DataError, match="marks 2 generations for 1 responses"):
        encode_chat(tokenizer, chat("头痛", "多休息"))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "no chat template; set chat.template to"),
        ("{{ messages", "cannot be rendered"),
        ("{{ messages[0]['content'] }}", "does not render the assistant's content"),
        (
            "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}",
            "does not begin with a special",
        ),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(template: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        chat_format(byte_tokenizer(CHATML_TOKENS, template, "<|im_end|>"))


def test_a_template_that_writes_the_date_is_refused_until_it_is_fixed() -> None:
    tokenizer = byte_tokenizer(LLAMA_TOKENS, LLAMA31, "<|end_of_text|>", "<|begin_of_text|>")
    with pytest.raises(ConfigError, match="writes today's date.*--chat.arguments.date_string="):
        chat_format(tokenizer)
    tokenizer.chat_template = with_arguments(LLAMA31, {"date_string": "26 Jul 2024"})
    assert "Today Date: 26 Jul 2024" in tokenizer.decode(encode_prompt(tokenizer, chat("头痛")))


def test_a_slow_tokenizer_is_refused() -> None:
    class Slow:
        is_fast, chat_template, name_or_path, eos_token = False, "{{ 1 }}", "old", "</s>"

        def get_chat_template(self) -> str:
            return self.chat_template

        def __len__(self) -> int:
            return 3

    with pytest.raises(ConfigError, match="old: the tokenizer is slow"):
        chat_format(Slow())
