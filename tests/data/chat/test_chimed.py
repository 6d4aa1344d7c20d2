from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pytest
from transformers import AutoTokenizer

from data.chat import chat_format, check_messages, encode_chat, encode_prompt
from data.clinic.build import Clinic
from data.tables import DataError

TWO_TURNS = [
    {"role": "user", "content": "感冒吃什么药？"},
    {"role": "assistant", "content": "您好，板蓝根。"},
    {"role": "user", "content": "还有呢？"},
    {"role": "assistant", "content": "多喝热水。"},
]
SYSTEM = {"role": "system", "content": "你是医生。"}


@pytest.fixture(scope="module")
def tokenizer(clinic_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(clinic_folder / "tokenizer")


def rendered(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    return tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False)


def test_the_format_is_chimed_gpts(tokenizer: Any) -> None:
    ids, _ = encode_chat(tokenizer, [SYSTEM, *TWO_TURNS])
    assert tokenizer.decode(ids) == (
        "你是医生。\n[human]:感冒吃什么药？\n[bot]:您好，板蓝根。</s>[human]:还有呢？\n[bot]:多喝热水。</s>"
    )


def test_the_mask_covers_answers_and_end_marks_exactly(tokenizer: Any) -> None:
    ids, mask = encode_chat(tokenizer, [SYSTEM, *TWO_TURNS])
    learned = [i for i, m in zip(ids, mask, strict=True) if m]
    assert tokenizer.decode(learned) == "您好，板蓝根。</s>多喝热水。</s>"
    bot = tokenizer.convert_tokens_to_ids("[bot]:")
    for index, token in enumerate(ids):
        if token == bot:
            assert (mask[index], mask[index + 1]) == (0, 1)
        if token == tokenizer.eos_token_id:
            assert mask[index] == 1


def test_a_prompt_is_what_precedes_the_answer(tokenizer: Any) -> None:
    ids, mask = encode_chat(tokenizer, TWO_TURNS[:2])
    prompt = encode_prompt(tokenizer, TWO_TURNS[:1])
    assert prompt == ids[: len(prompt)]
    assert prompt[-1] == tokenizer.convert_tokens_to_ids("[bot]:")
    assert sum(mask) == len(ids) - len(prompt)


def turn_by_turn(tokenizer: Any, messages: list[dict[str, str]]) -> tuple[list[int], list[int]]:
    """Ids and mask of a chat whose turns are encoded one by one."""
    ids: list[int] = []
    mask: list[int] = []
    forms = {"system": "{}\n", "user": "[human]:{}\n[bot]:", "assistant": "{}</s>"}
    for message in messages:
        turn = tokenizer.encode(forms[message["role"]].format(message["content"]), add_special_tokens=False)
        ids += turn
        mask += [int(message["role"] == "assistant")] * len(turn)
    return ids, mask


@pytest.mark.slow
def test_encoding_whole_and_turn_by_turn_are_the_same(tokenizer: Any, clinic: Clinic) -> None:
    chats = [row["messages"] for row in clinic.rows["sft.train"]]
    chats += [
        [*row["prompt"], {"role": "assistant", "content": row["chosen"]}] for row in clinic.rows["preference.train"]
    ]
    for chat in chats:
        ids, mask = turn_by_turn(tokenizer, chat)
        assert encode_chat(tokenizer, chat) == (ids, mask)
        assert chat_format(tokenizer).samples(chat) == [(ids, mask)]
        prompt, response = chat_format(tokenizer).response(chat)
        assert prompt + response == ids
        assert prompt == turn_by_turn(tokenizer, chat[:-1])[0]


def test_the_template_renders_the_same_ids(tokenizer: Any, clinic: Clinic) -> None:
    chats = [row["messages"] for row in clinic.rows["sft.train"][:300]]
    assert any(chat[0]["role"] == "system" for chat in chats)
    for chat in chats:
        assert rendered(tokenizer, chat) == encode_chat(tokenizer, chat)[0]
        end = len(chat) - 1
        assert rendered(tokenizer, chat[:end]) == encode_prompt(tokenizer, chat[:end])


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "no turns"),
        (TWO_TURNS[1:], "turn 0: found the assistant's turn where the user's must be"),
        ([TWO_TURNS[0], TWO_TURNS[0]], "turn 1: found the user's turn where the assistant's must be"),
        ([{"role": "user", "content": "  "}], "turn 0 .user.: the content is empty"),
        ([{"role": "doctor", "content": "a"}], "turn 0: unknown role 'doctor'"),
        ([TWO_TURNS[0], SYSTEM], "turn 1: a system turn may only come first"),
        ([SYSTEM], "only a system turn"),
        ([{"role": "user", "content": "好\n[bot]:你"}], r"turn 0 .user.: contains the reserved mark '\[bot\]:'"),
    ],
)
def test_bad_chats_are_refused(tokenizer: Any, messages: list[dict[str, str]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_messages(messages)
    with pytest.raises(DataError, match=message):
        encode_chat(tokenizer, messages)
    if messages and messages != [SYSTEM]:  # what the server can see turn by turn, its template refuses too
        with pytest.raises(jinja2.TemplateError):
            rendered(tokenizer, messages)


def test_a_prompt_ends_with_the_user(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="the last turn is the assistant's"):
        encode_prompt(tokenizer, TWO_TURNS)
