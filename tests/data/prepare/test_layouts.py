"""Layouts of published data sets: each becomes the right row, and random contents come through every one of them whole."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.choices.question import LETTERS
from data.prepare.options import Options
from data.prepare.schemas.convert import row_of, texts_of
from data.prepare.schemas.several_rows import records_of
from data.tables import DataError

CHAT = Options("chat")


def rows(record, kind="chat", **options):
    given_options = Options(kind, **options)
    return [row_of(one, given_options) for one in records_of(record, given_options)]


DIALOGUES = {
    "Chinese roles": {"messages": [{"role": "患者", "content": "头晕"}, {"role": "医生", "content": "测血压"}]},
    "IMCS": {
        "self_report": "头晕",
        "dialogue": [{"sentence_id": "1", "speaker": "医生", "sentence": "测血压", "dialogue_act": "Other"}],
    },
    "MedDialog": ["病人：头晕", "医生：测血压"],
    "MedDialog on the Hub": {"utterances": ["patient: 头晕", "doctor: 测血压"], "description": "头晕"},
    "MedDialog in Parquet": {"dialogue_turns": {"speaker": ["病人", "医生"], "utterance": ["头晕", "测血压"]}},
    "HuatuoGPT": {"data": ["问：头晕", "答：测血压"]},
    "UltraChat": {"id": "0", "data": ["头晕", "测血压"]},
    "XTuner": {"conversation": [{"system": "", "input": "头晕", "output": "测血压"}]},
    "input, output": {"input": "头晕", "output": "测血压"},
    "PromptCBLUE": {"input": "头晕", "target": "测血压", "type": "cls", "answer_choices": ""},
    "title, ask": {"department": "内科", "title": "头晕", "ask": "无", "answer": "测血压"},
    "Huatuo-26M": {"questions": [["头晕"]], "answers": ["测血压"]},
    "KTO": {"prompt": "头晕", "completion": "测血压", "label": True},
    "capital columns": {"Question": "头晕", "Answer": "测血压"},
    "user and assistant": {"user": "头晕", "assistant": "测血压"},
    "MedDG": [{"id": "Patients", "Sentence": "头晕"}, {"id": "Doctor", "Sentence": "测血压"}],
    "Firefly": {"conversation_id": 1, "conversation": [{"human": "头晕", "assistant": "测血压"}]},
    "CMB-Clin": {"id": "0", "description": "", "QA_pairs": [{"question": "头晕", "answer": "测血压"}]},
    "turns in a column of any name": {
        "id": 1,
        "items": [{"from": "human", "value": "头晕"}, {"from": "gpt", "value": "测血压"}],
    },
    "parts of messages": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "头晕"}]},
            {"role": "assistant", "content": "测血压"},
        ]
    },
    "patient, doctor": {"Description": "x", "Patient": "头晕", "Doctor": "测血压"},
    "dialogue in one text": {"dialogue": "患者：头晕\n医生：测血压"},
    "transcript of one turn": {"input": "病人：头晕\n医生：", "target": "测血压"},
    "marked question and answer": {"question": "问：头晕", "answer": "答：测血压"},
}


@pytest.mark.parametrize("layout", DIALOGUES)
def test_chats(layout):
    (row,) = rows(DIALOGUES[layout])
    assert [(turn["role"], turn["content"]) for turn in row["messages"]] == [("user", "头晕"), ("assistant", "测血压")]


TRANSCRIPTS = {
    "BianQue": {"input": "病人：头晕\n医生：多久了？\n病人：两天\n医生：", "target": "测血压"},
    "in one line": {"input": "病人：头晕 医生：多久了？ 病人：两天 医生：", "target": "医生：测血压"},
    "BELLE": {"instruction": "Human:头晕\nAssistant:多久了？\nHuman:两天\nAssistant:", "input": "", "output": "测血压"},
    "HH": {"prompt": "\n\nHuman: 头晕\n\nAssistant: 多久了？\n\nHuman: 两天\n\nAssistant:", "response": "测血压"},
    "without the last mark": {"query": "患者：头晕\n大夫：多久了？\n患者：两天", "response": "测血压"},
}


@pytest.mark.parametrize("layout", TRANSCRIPTS)
def test_transcripts_are_turns(layout):
    (row,) = rows(TRANSCRIPTS[layout])
    assert texts_of(row) == ["头晕", "多久了？", "两天", "测血压"]
    assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"] * 2
    assert row["task"] == "dialogue"


@pytest.mark.parametrize(
    "text",
    ["请判断意图。病人：头晕。医生：多久了？", "病人：头晕\n医生：多久了？", "病人：头晕", "患者头晕，医生：多久了？"],
)
def test_texts_about_dialogues_stay_as_they_are(text):
    (row,) = rows({"input": text, "target": "问诊"})
    assert texts_of(row) == [text, "问诊"]


def test_what_a_question_is_about_comes_with_it():
    dolly = {"instruction": "概括下文。", "context": "高血压是慢性病。", "response": "慢性病", "category": "x"}
    assert texts_of(rows(dolly)[0]) == ["概括下文。\n高血压是慢性病。", "慢性病"]
    read = {"question": "是什么病？", "context": {"contexts": ["高血压是慢性病。", "需要管理。"]}, "answer": "慢性病"}
    assert texts_of(rows(read)[0]) == ["高血压是慢性病。\n需要管理。\n是什么病？", "慢性病"]
    exam = {"article": "高血压是慢性病。", "question": "是什么病？", "options": ["急性病", "慢性病"], "answer": "B"}
    assert texts_of(rows(exam)[0]) == ["高血压是慢性病。\n是什么病？\nA. 急性病\nB. 慢性病", "B. 慢性病"]
    case = {
        "description": "男，40岁。",
        "QA_pairs": [{"question": "诊断？", "answer": "疝"}, {"question": "治疗？", "answer": "手术"}],
    }
    assert texts_of(rows(case)[0]) == ["男，40岁。\n诊断？", "疝", "治疗？", "手术"]
    orca = {"system_prompt": "你是医生。", "question": "头晕", "response": "测血压"}
    assert texts_of(rows(orca)[0]) == ["你是医生。", "头晕", "测血压"]


def test_people_who_speak_several_times_in_a_row_have_one_turn():
    (row,) = rows(
        {"dialogue": [{"speaker": speaker, "sentence": speaker} for speaker in ("患者", "患者", "医生", "医生")]}
    )
    assert texts_of(row) == ["患者\n患者", "医生\n医生"]


def test_every_paraphrase_of_a_question_is_a_row():
    found = rows({"questions": [["高血压是什么病？"], ["什么是高血压？"]], "answers": ["一种慢性病。"]})
    assert [texts_of(row) for row in found] == [
        ["高血压是什么病？", "一种慢性病。"],
        ["什么是高血压？", "一种慢性病。"],
    ]
    with pytest.raises(DataError, match="2 questions and 2 answers"):
        rows({"questions": ["一", "二"], "answers": ["甲", "乙"]})


PREFERENCES = {
    "HH": {"chosen": "\n\nHuman: 头晕\n\nAssistant: 好", "rejected": "\n\nHuman: 头晕\n\nAssistant: 坏"},
    "CValues": {"prompt": "头晕", "pos_resp": "好", "neg_resp": "坏"},
    "scores": {"prompt": "头晕", "responses": ["坏", "好"], "scores": [1, 2]},
    "ranks": {"question": "头晕", "answers": [{"text": "坏", "rank": 2}, {"text": "好", "rank": 1}]},
    "PKU": {"prompt": "头晕", "response_0": "坏", "response_1": "好", "better_response_id": 1},
    "HelpSteer": {"prompt": "头晕", "response_1": "坏", "response_2": "好", "preference_strength": 2},
    "SHP": {"query": "头晕", "human_ref_A": "好", "human_ref_B": "坏", "score_A": 3, "score_B": 2},
    "arena": {
        "winner": "model_b",
        "conversation_a": [{"role": "user", "content": "头晕"}, {"role": "assistant", "content": "坏"}],
        "conversation_b": [{"role": "user", "content": "头晕"}, {"role": "assistant", "content": "好"}],
    },
    "ms-swift": {"query": "头晕", "response": "好", "rejected_response": "坏"},
    "ms-swift messages": {
        "messages": [{"role": "user", "content": "头晕"}, {"role": "assistant", "content": "好"}],
        "rejected_response": "坏",
    },
    "Argilla": {
        "instruction": "头晕",
        "chosen_response": "好",
        "rejected_response": "坏",
        "chosen-rating": 3,
        "rejected-rating": 2,
    },
    "Nectar": {
        "prompt": "\n\nHuman: 头晕\n\nAssistant: ",
        "answers": [{"answer": "好", "rank": 1.0}, {"answer": "坏", "rank": 2.0}],
    },
}


@pytest.mark.parametrize("layout", PREFERENCES)
def test_preferences(layout):
    (row,) = rows(PREFERENCES[layout], "preference")
    assert texts_of(row) == ["头晕", "好", "坏"]
    assert row["margin"] == (1.0 if layout in ("scores", "ranks", "SHP", "Argilla", "Nectar") else 0.0)


def test_ranked_answers_give_a_pair_for_every_two():
    found = rows({"prompt": "问", "responses": ["一", "二", "三"], "scores": [3, 3, 1]}, "preference")
    assert [(row["chosen"], row["rejected"], row["margin"]) for row in found] == [("一", "三", 2.0), ("二", "三", 2.0)]


@pytest.mark.parametrize(
    ("record", "kind", "reason"),
    [
        ({"prompt": "问", "completion": "答", "label": False}, "chat", "label is false"),
        ({"prompt": "问", "responses": ["一", "二"]}, "preference", "no scores or ranks"),
        ({"prompt": "问", "responses": ["一", "二"], "scores": [1]}, "preference", "give one to each"),
        ({"text": "句子|||0    2    dis|||"}, "text", "as CHIP's files do"),
        ({"data": ["问：头晕", "测血压"]}, "chat", "has no speaker prefix"),
        ({"question": "问", "distractor1": "甲", "answer": "乙"}, "chat", "distractor1 seems to hold options"),
        ({"question": "问", "A": "甲", "B": "乙", "answer": "丙"}, "chat", "must be one of the options A, B"),
        ({"content": "问", "options": ["甲", "乙"], "answer": "A"}, "text", "options but no question"),
        ({"question": "问", "long_answer": "答"}, "chat", r"no answer to train on \(columns question, long_answer\)"),
        ({"query": "问", "label": "意图"}, "chat", r"no answer to train on \(columns query, label\)"),
        (
            {"message_id": "1", "text": "问", "role": "prompter"},
            "chat",
            r"is one turn \(columns message_id, text, role\)",
        ),
        ({"results": [{"question": "问", "answer": "答"}] * 2}, "chat", "no known schema has its columns"),
        (
            {"prompt": "问", "response_a": "好", "response_b": "坏"},
            "preference",
            "no column that names the better one",
        ),
        ({"prompt": "问", "response_0": "好", "response_1": "坏", "winner": "tie"}, "preference", "names neither"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "chat", "a part of type image"),
        ({"question": "问", "context": [{"text": "x"}], "answer": "答"}, "chat", "must be a text or a list of texts"),
    ],
)
def test_what_cannot_be_read_rightly_is_refused(record, kind, reason):
    with pytest.raises(DataError, match=reason):
        rows(record, kind)


def test_options_come_before_the_answer_and_the_explanation_after_it():
    record = {
        "question": "问",
        "option": {"A": "甲", "B": "乙", "C": "丙", "D": ""},
        "answer": "AC",
        "explanation": "因为",
    }
    (row,) = rows(record)
    assert texts_of(row) == ["问\nA. 甲\nB. 乙\nC. 丙", "A. 甲\nC. 丙\n因为"]
    assert rows({"question": "问", "A": "甲", "B": "乙"}, "prompts") == [
        {"prompt": [{"role": "user", "content": "问\nA. 甲\nB. 乙"}]}
    ]
    numbered = {"question": "问", "opa": "甲", "opb": "乙", "cop": 1}
    assert texts_of(rows(numbered, first_option=0)[0])[1] == "B. 乙"
    assert texts_of(rows(numbered, first_option=1)[0])[1] == "A. 甲"


@pytest.mark.parametrize(
    "record",
    [
        {"qid": 1, "qtext": "问", "ra": 2, "answers": [{"aid": 1, "atext": "甲"}, {"aid": 2, "atext": "乙"}]},
        {"question": "问", "answers": ["甲", "乙"], "answer": "B"},
        {
            "question": {"stem": "问", "choices": [{"text": "甲", "label": "A"}, {"text": "乙", "label": "B"}]},
            "answerKey": "B",
        },
        {"question_stem": "问", "choices": {"text": ["甲", "乙"], "label": ["A", "B"]}, "answerKey": "B"},
        {"question": "问", "options": "A:甲;B:乙", "answer": "B"},
        {"question": "问", "endings": ["甲", "乙"], "answer": "B", "answer_explanation": ""},
    ],
)
def test_options_in_other_columns_are_not_dropped(record):
    assert texts_of(rows(record)[0]) == ["问\nA. 甲\nB. 乙", "B. 乙"]


def test_cells_that_pandas_left_empty_are_no_texts():
    record = {"question": "问", "A": "甲", "B": "乙", "C": "nan", "answer": "A", "explanation": "nan"}
    assert texts_of(rows(record)[0]) == ["问\nA. 甲\nB. 乙", "A. 甲"]


def test_options_that_the_question_has_are_not_said_twice():
    (row,) = rows({"question": "问\nA. 甲\nB. 乙", "options": ["甲", "乙"], "answer": "A"})
    assert texts_of(row) == ["问\nA. 甲\nB. 乙", "A. 甲"]
    cblue = {"input": "头晕是什么？选项：疾病，手术", "target": "疾病", "answer_choices": ["疾病", "手术"]}
    assert texts_of(rows(cblue)[0]) == ["头晕是什么？选项：疾病，手术", "疾病"]


# Words that no layout takes for a letter, a label or a mark; numbers as in doses and laboratory values.
WORDS = st.text(st.sampled_from("头痛发热咳嗽心肺肝肾病"), min_size=1, max_size=8)
NUMBERS = st.one_of(st.integers(10, 999).map(str), st.decimals("0.01", "99.99", places=2).map(str))
TEXTS = st.one_of(WORDS, st.tuples(WORDS, NUMBERS).map("".join), st.tuples(NUMBERS, st.just("mg/kg")).map("".join))
OPTIONS = st.lists(TEXTS, min_size=2, max_size=10, unique=True)

LAYOUTS = {
    "columns": lambda q, o, key: {"question": q, **o, "answer": key},
    "capital columns": lambda q, o, key: {"Question": q, **o, "Answer": key},
    "blank columns": lambda q, o, key: {"question": q, **dict.fromkeys(LETTERS, ""), **o, "answer": key},
    "CMB": lambda q, o, key: {"question": q, "option": o, "answer": key},
    "CMExam": lambda q, o, key: {"Question": q, "Options": "\n".join(f"{k} {v}" for k, v in o.items()), "Answer": key},
    "MedQA": lambda q, o, key: {"question": q, "options": o, "answer_idx": key, "answer": "、".join(o[k] for k in key)},
    "pairs": lambda q, o, key: {
        "question": q,
        "options": [{"key": k, "value": v} for k, v in o.items()],
        "answer": key,
    },
    "lists": lambda q, o, key: {"question": q, "choices": list(o.values()), "answer": list(key)},
    "op columns": lambda q, o, key: {"question": q, **{f"op{k.lower()}": v for k, v in o.items()}, "cop": key},
    "texts": lambda q, o, key: {"question": q, "choices": list(o.values()), "answer": [o[k] for k in key]},
    "JSON cell": lambda q, o, key: {"question": q, "options": json.dumps(o), "answer": key},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@given(question=TEXTS, texts=OPTIONS, data=st.data())
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
def test_exams_come_through_whole(layout, question, texts, data):
    options = dict(zip(LETTERS, texts, strict=False))
    key = "".join(sorted(data.draw(st.sets(st.sampled_from(list(options)), min_size=1))))
    (row,) = rows(LAYOUTS[layout](question, options, key))
    asked, answer = texts_of(row)
    assert asked == "\n".join([question, *(f"{letter}. {text}" for letter, text in options.items())])
    assert answer == "\n".join(f"{letter}. {options[letter]}" for letter in key)


CHATS = {
    "messages": lambda turns: {
        "messages": [{"role": ("患者", "医生")[i % 2], "content": t} for i, t in enumerate(turns)]
    },
    "conversations": lambda turns: {
        "conversations": [{"from": ("human", "gpt")[i % 2], "value": t} for i, t in enumerate(turns)]
    },
    "texts in turn": lambda turns: {"data": list(turns)},
    "spoken texts": lambda turns: {"data": [f"{('问', '答')[i % 2]}：{t}" for i, t in enumerate(turns)]},
    "XTuner": lambda turns: {
        "conversation": [{"input": one, "output": other} for one, other in zip(turns[::2], turns[1::2], strict=True)]
    },
    "history": lambda turns: {
        "history": [list(pair) for pair in zip(turns[:-2:2], turns[1:-2:2], strict=True)],
        "query": turns[-2],
        "response": turns[-1],
    },
}


@pytest.mark.parametrize("layout", CHATS)
@given(turns=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None, derandomize=True, database=None)
def test_conversations_come_through_whole(layout, turns):
    said = [text for pair in turns for text in pair]
    (row,) = rows(CHATS[layout](said))
    assert texts_of(row) == said
    assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"] * len(turns)
