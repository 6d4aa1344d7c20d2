"""Every schema in use becomes the right row, and what is none says why."""

from __future__ import annotations

import pytest

from data.prepare.options import Options
from data.prepare.schemas.convert import check_row, row_of, texts_of, with_texts
from data.tables import DataError

USER = {"role": "user", "content": "问"}
BOT = {"role": "assistant", "content": "答"}
HUMAN, GPT = {"from": "human", "value": "问"}, {"from": "gpt", "value": "答"}
CHAT = {"messages": [USER, BOT], "task": "qa"}
PAIR = {"prompt": [USER], "chosen": "好", "rejected": "坏", "flaw": "", "margin": 0.0}


def row(record, kind, **options):
    return row_of(record, Options(kind, **options))


@pytest.mark.parametrize(
    "record",
    [
        {"instruction": "问", "input": "", "output": "答"},
        {"instruction": ["问"], "input": "", "output": ["答"], "id": ""},
        {"instruct": "问", "output": "答"},
        {"question": "问", "answer": "答", "id": 3},
        {"prompt": "问", "response": "答", "history": []},
        {"query": "问", "response": "答", "history": None},
        {"messages": [USER, BOT]},
        {"conversations": [HUMAN, GPT]},
    ],
)
def test_chats(record):
    assert row(record, "chat") == CHAT
    assert row(record, "prompts") == {"prompt": [USER]}
    assert row(record, "text") == {"text": "问\n答"}


def test_history_system_and_input_come_before_the_question():
    record = {"system": "你是医生", "history": [["问", "答"]], "instruction": "再问", "input": "病历", "output": "再答"}
    turns = row(record, "chat")
    assert texts_of(turns) == ["你是医生", "问", "答", "再问\n病历", "再答"]
    assert turns["task"] == "dialogue"
    assert row(record, "prompts")["prompt"] == turns["messages"][:-1]


def test_a_choice_question_is_answered_by_letter_and_text():
    record = {"": "0", "Question": "腺是", "A": "甲", "B": "乙", "C": "丙", "D": "丁", "Answer": "B"}
    got = row(record, "chat")
    assert texts_of(got) == ["腺是\nA. 甲\nB. 乙\nC. 丙\nD. 丁", "B. 乙"]
    assert got["task"] == "choice"
    with pytest.raises(DataError, match="must be one of the options"):
        row({**record, "Answer": "E"}, "chat")


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "问", "chosen": "好", "rejected": "坏"},
        {"question": "问", "response_chosen": "好", "response_rejected": "坏"},
        {
            "conversations": [HUMAN],
            "chosen": {"from": "gpt", "value": "好"},
            "rejected": {"from": "gpt", "value": "坏"},
        },
        {"chosen": [USER, {**BOT, "content": "好"}], "rejected": [USER, {**BOT, "content": "坏"}]},
        {"prompt": [USER], "chosen": [{**BOT, "content": "好"}], "rejected": [{**BOT, "content": "坏"}]},
    ],
)
def test_preferences(record):
    assert row(record, "preference") == PAIR
    assert texts_of(row(record, "chat")) == ["问", "好"]
    assert row(record, "prompts") == {"prompt": [USER]}


@pytest.mark.parametrize(
    ("said", "margin"),
    [
        ({"margin": 1.5, "flaw": "rude"}, 1.5),
        ({"margin": "0.5"}, 0.5),
        ({"margin": None, "score_chosen": 4, "score_rejected": 2.5}, 1.5),
        ({"score_chosen": 4}, 0.0),
    ],
)
def test_how_much_better_the_chosen_answer_is_comes_with_the_pair(said, margin):
    got = row({"prompt": "问", "chosen": "好", "rejected": "坏", **said}, "preference")
    assert got == {**PAIR, "margin": margin, "flaw": said.get("flaw", "")}


@pytest.mark.parametrize(
    ("record", "kind", "reason"),
    [
        ({"prompt": "a", "chosen": "a", "rejected": "b", "margin": "viel"}, "preference", "margin holds 'viel'"),
        ({"prompt": "a", "chosen": "a", "rejected": "b", "margin": True}, "preference", "margin holds True"),
        ({"prompt": "a", "chosen": "a", "rejected": "b", "margin": float("inf")}, "preference", "must be a number"),
        (
            {"prompt": "a", "chosen": "a", "rejected": "b", "score_chosen": 1, "score_rejected": 3},
            "preference",
            "margin is -2, so the rejected answer is better",
        ),
        ("text", "text", "holds a text, not a record"),
        ({"a": 1}, "chat", "no known schema has its columns"),
        ({"text": 5}, "text", "text holds a number"),
        ({"text": "a"}, "chat", "cannot become a row of --kind chat"),
        ({"messages": [USER, BOT]}, "preference", "without a rejected answer"),
        ({"messages": "a"}, "chat", "must be a list of turns"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "chat", "the role is 'tool'"),
        ({"messages": [USER]}, "chat", "no answer to train on"),
        ({"question": "问", "answer": None}, "chat", "answer holds nothing"),
        ({"question": "问", "answer": ["a", "b"]}, "chat", "answer holds a list of 2"),
        ({"question": "问", "answer": "a", "history": [["a"]]}, "chat", r"history\[0\] holds a list of 1"),
        ({"chosen": "a", "rejected": "b"}, "preference", "no prompt"),
        ({"conversations": [HUMAN, GPT], "chosen": "a", "rejected": "b"}, "preference", "does not end with a user"),
    ],
)
def test_reasons(record, kind, reason):
    with pytest.raises(DataError, match=reason):
        row(record, kind)


def test_named_columns_are_taken_for_fields():
    record = {"提问": "问", "回答": "答", "text": "旁注"}
    columns = (("question", "提问"), ("answer", "回答"))
    assert row(record, "chat", columns=columns) == CHAT
    with pytest.raises(DataError, match="no column '提问'"):
        row({"问": "a"}, "chat", columns=columns)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"messages": [BOT, USER], "task": ""}, "found the assistant's turn"),
        ({"messages": [USER, {**BOT, "content": " "}], "task": ""}, "empty"),
        ({"messages": [USER, {**BOT, "content": "[human]:再问"}], "task": ""}, "reserved mark"),
        ({**PAIR, "rejected": "好"}, "the same text"),
        ({"text": "头痛</s>"}, "reserved mark"),
        ({"text": "\ud83d"}, "an unpaired surrogate"),
        ({"text": " \n"}, "text is empty"),
    ],
)
def test_rows_that_stages_would_refuse(bad, reason):
    with pytest.raises(DataError, match=reason):
        check_row(bad)


def test_texts_are_put_back_where_they_were():
    for one in (CHAT, PAIR, {"text": "a"}, {"prompt": [USER]}):
        check_row(one)
        assert with_texts(one, texts_of(one)) == one
        assert texts_of(with_texts(one, [text + "!" for text in texts_of(one)])) == [
            text + "!" for text in texts_of(one)
        ]


def test_several_schemas_each_have_their_maps():
    columns = (("question", "提问"), ("answer", "回答"), ("question", "wen"), ("answer", "da"), ("text", "正文"))
    options = Options("text", columns=columns)
    records = [
        {"提问": "问", "回答": "答"},
        {"wen": "问", "da": "答"},
        {"question": "问", "answer": "答"},
        {"正文": "问\n答"},
    ]
    assert [row_of(record, options) for record in records] == [{"text": "问\n答"}] * 4
    for record, reason in (({"wen": "问"}, "no column 'da'"), ({**records[0], **records[1]}, "both of which")):
        with pytest.raises(DataError, match=reason):
            row_of(record, options)
