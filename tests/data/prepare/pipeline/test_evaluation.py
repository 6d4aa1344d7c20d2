"""Evaluation items in training data are found, and no more goes than they. Medical text here is synthetic."""

from __future__ import annotations

import csv
import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.prepare.__main__ import main
from data.prepare.options import Options
from data.prepare.pipeline.evaluation import Evaluation
from data.prepare.pipeline.pools import Here
from data.prepare.pipeline.run import prepare
from data.prepare.schemas.items import item_of
from data.tables import DataError

CORPORA = Path(os.environ.get("CHIMED_CORPORA", Path(__file__).parents[5] / "shared/corpora"))
LETTERS = "头痛发热咳嗽乏力胸闷腹泻心悸失眠纳差便秘盗汗自汗黄芪当归人参甘草茯苓白术川芎"
EXAM = {"question": "生殖腺是", "A": "卵巢", "B": "前庭", "C": "乳腺", "D": "子宫", "answer": "A"}


def draw(seed, length):
    return "".join(random.Random(seed).choices(LETTERS, k=length))


def items(*records):
    return Evaluation([item_of(record, Options("chat")) for record in records], 13)


def found(evaluation, *texts):
    return [
        [text[start:end] for start, end in spans] for text, spans in zip(texts, evaluation.spans(texts), strict=True)
    ]


@pytest.mark.parametrize(
    "record",
    [
        EXAM,
        {"question": "生殖腺是", "options": {"A": "卵巢", "B": "前庭", "C": "乳腺", "D": "子宫"}, "answer": 0},
        {"题目": "生殖腺是", "选项A": "卵巢", "选项B": "前庭", "选项C": "乳腺", "选项D": "子宫", "答案": "甲"},
    ],
)
def test_a_question_and_its_options_are_one_item(record):
    evaluation = items(record)
    assert (evaluation.items, evaluation.only_whole, evaluation.too_short) == (1, 1, 0)
    asked = "生殖腺是（ ）？\nA. 卵巢\nB. 前庭\nC. 乳腺\nD. 子宫"
    shuffled = "生殖腺是：\n(A) 子宫\n(B) 乳腺\n(C) 卵巢\n(D) 前庭"
    assert found(evaluation, asked, "题：\n" + shuffled + "\n答案：卵巢") == [[asked], [shuffled]]
    assert found(evaluation, "生殖腺是 A.卵巢 B.前庭 C.乳腺 D.子宫") == [["生殖腺是 A.卵巢 B.前庭 C.乳腺 D.子宫"]]
    assert found(evaluation, "女性的生殖腺是两侧的卵巢，前庭不是，乳腺、子宫也不是。", "生殖腺是", "卵巢") == [
        [],
        [],
        [],
    ]


def test_options_alone_show_no_item():
    evaluation = items({**EXAM, "A": "高血压", "B": "糖尿病", "C": "冠心病", "D": "脑血管病"})
    listed = "高血压、糖尿病、冠心病、脑血管病"
    assert found(evaluation, f"常见的有{listed}等。", f"题：生殖腺是{listed}等。") == [[], ["生殖腺是" + listed]]


def test_options_belong_to_their_question_alone():
    options = {"A": "青霉素", "B": "红霉素", "C": "庆大霉素", "D": "氯霉素"}
    evaluation = items({"question": "治疗破伤风首选？", "options": options, "answer": "A"})
    listed = "\nA. 青霉素\nB. 红霉素\nC. 庆大霉素\nD. 氯霉素"
    assert found(evaluation, "治疗破伤风首选（ ）" + listed, "治疗肺炎首选？" + listed) == [
        ["治疗破伤风首选（ ）" + listed],
        [],
    ]


def test_a_short_question_is_found_with_its_answer_alone():
    evaluation = items({"question": "治疗破伤风首选", "options": ["青霉素", "红霉素"], "answer": "A"})
    assert found(evaluation, "治疗破伤风首选？\n青霉素。", "治疗破伤风首选？\n多休息。", "青霉素\n红霉素") == [
        ["治疗破伤风首选？\n青霉素。"],
        [],
        [],
    ]


def test_short_questions_are_found_where_they_are_whole_lines():
    evaluation = items({"question": "头晕怎么办", "answer": "多喝水"}, {"text": "是"})
    assert (evaluation.items, evaluation.only_whole, evaluation.too_short) == (2, 1, 1)
    assert found(evaluation, "请回答：\n头晕怎么办？", "老人头晕怎么办", "多喝水") == [["头晕怎么办？"], [], []]


def test_turns_of_dialogues_are_no_items():
    turns = [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, ("你好医生", "你好", "谢谢医生", draw(1, 20)), strict=True)]  # fmt: skip
    assert found(items({"messages": turns}), "你好医生", "谢谢医生", draw(1, 20)) == [[], [], [draw(1, 20)]]


def test_latin_words_and_numbers_count_as_characters_do():
    evaluation = items({"text": "Streptococcus pneumoniae is treated with penicillin or 阿莫西林胶囊500mg口服"})
    assert found(evaluation, "Streptococcus pneumoniae is treated with penicillin in most places") == [[]]
    assert found(evaluation, "with penicillin or 阿莫西林胶囊500 mg口服，每日三次") == [
        ["with penicillin or 阿莫西林胶囊500 mg口服，"]
    ]
    assert found(evaluation, "Streptococcus pneumoniae ") == [[]]


def test_what_many_items_have_is_a_template():
    template = "请回答下面的单项选择题，只写出选项的字母，不要解释。"
    evaluation = items(*({"text": template + draw(seed, 20)} for seed in range(11)))
    assert found(evaluation, template + draw(99, 30)) == [[]]
    [[shared]] = found(evaluation, draw(98, 10) + draw(3, 20))
    assert shared == draw(3, 20)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(13, 60), st.integers(0, 100), st.sampled_from(["", "。", "？"]))
def test_a_quotation_is_found_and_nothing_else(seed, length, place, mark):
    quoted = draw(seed, length)
    before, after = draw(seed + 20_000, place), draw(seed + 40_000, 200)
    evaluation = items({"text": quoted})
    for text in (f"{before}。{quoted}{mark}\n{after}", f"{before}，{quoted}{mark}{after}"):
        [[shared]] = found(evaluation, text)
        assert shared.startswith(quoted)
        assert len(shared) <= length + len(mark) + 1  # a token that happens to go on, too
    assert found(evaluation, before, quoted[:12], after) == [[], [], []]


def test_passages_are_cut_and_short_rows_removed(tmp_path, prepared):
    quoted = draw(1, 40)
    texts = [draw(2, 300) + "。" + quoted + "。" + draw(3, 300), "题：" + quoted, draw(4, 300)]
    path, exam = tmp_path / "a.jsonl", tmp_path / "exam.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    exam.write_text(json.dumps({"question": quoted}) + "\n", "utf-8")
    outcome, rows, rejects = prepared("text", path, decontaminate=(exam,))
    assert [row["text"] for row in rows] == [draw(2, 300) + "。\n" + draw(3, 300), texts[2]]
    assert [(one["line"], one["step"]) for one in rejects] == [(2, "decontamination")]
    assert outcome.report["evaluation"] == {
        "items": 1,
        "looked_for_as_whole_lines": 0,
        "too_short_to_look_for": 0,
        "passages_cut": 1,
        "characters_cut": 40,
        "rows_removed": 1,
        "characters_removed": 42,
    }
    assert outcome.report["changed"] == {"decontamination": 1}


def test_the_console_says_what_went_and_what_was_too_short(tmp_path, capsys):
    path, exam = tmp_path / "a.jsonl", tmp_path / "exam.jsonl"
    chats = [{"question": text, "answer": "答案" + draw(9, 30)} for text in ("头晕怎么办？", draw(2, 30))]
    path.write_text("".join(json.dumps(one) + "\n" for one in chats), "utf-8")
    exam.write_text('{"question": "头晕怎么办"}\n{"question": "痛"}\n', "utf-8")
    arguments = ["--input", str(path), "--kind", "chat", "--out", str(tmp_path / "out"), "--decontaminate", str(exam)]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "2 evaluation items; 1 matched only as whole lines, 1 not matched, because they are too short" in said
    assert (
        "0 passages with evaluation items cut (0 characters); 1 rows with evaluation items removed (39 characters)"
        in said
    )


@pytest.mark.skipif(not CORPORA.is_dir(), reason="there is no folder of real corpora; name one with CHIMED_CORPORA")
@pytest.mark.parametrize("kind", ["chat", "text", "prompts"])
def test_an_exam_against_itself_leaves_nothing(tmp_path, kind):
    exams = [str(path) for path in sorted((CORPORA / "cmmlu").glob("*.test.csv"))]
    with pytest.raises(DataError, match="no row is left of 1166 records: 1166 removed by decontamination"):
        prepare(exams, tmp_path / "out", Options(kind), Here(), exams)


@pytest.mark.slow
@pytest.mark.skipif(not CORPORA.is_dir(), reason="there is no folder of real corpora; name one with CHIMED_CORPORA")
@pytest.mark.parametrize("form", ["question", "with options"])
def test_quotations_in_real_texts_cost_little_more_than_they_are(tmp_path, form):
    exams = sorted((CORPORA / "cmmlu").glob("*.test.csv"))
    records = [one for path in exams for one in csv.DictReader(path.open(encoding="utf-8"))]
    rng = random.Random(7)
    quoted = [one["Question"] for one in records if len(one["Question"]) >= 20]
    if form == "with options":
        quoted = [" ".join([one["Question"], *(f"{key}.{one[key]}" for key in "ABCD")]) for one in records]
    quoted = rng.sample(quoted, 46)
    characters = {}
    for name in ("without", "with"):
        folder = tmp_path / name
        folder.mkdir()
        for path, quotation in zip(sorted((CORPORA / "tcm_classics").glob("*.txt"))[:46], quoted, strict=True):
            text = path.read_text("gb18030")
            place = text.index("。", len(text) // 2) + 1 if "。" in text[len(text) // 2 :] else text.index("\n", 600)
            new = text[:place] + quotation + text[place:] if name == "with" else text
            (folder / path.name).write_text(new, "utf-8")
        options = Options("text", skip=("near", "exact", "repetition"))
        outcome = prepare([str(folder)], tmp_path / f"{name}-out", options, Here(), [*map(str, exams)])
        characters[name] = outcome.report["characters"]
    lost = characters["without"] + sum(map(len, quoted)) - characters["with"]
    assert 0.95 <= lost / sum(map(len, quoted)) <= 1.05
