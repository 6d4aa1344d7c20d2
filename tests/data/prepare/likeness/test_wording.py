"""Near duplicates: rows that say the same in another wording go, all others stay. Medical text here is synthetic."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.prepare.likeness.wording import fingerprints

ADVICE = "建议清淡饮食并注意休息，避免熬夜和劳累，适当运动，保持心情舒畅，如果症状加重或持续不缓解，请尽快到当地医院就诊检查。"
DISEASES = ["高血压", "糖尿病", "冠心病", "肺炎", "胃溃疡", "偏头痛", "头痛", "肾结石", "胆囊炎", "痛风", "湿疹", "失眠", "贫血", "便秘", "腹泻", "哮喘", "鼻炎", "咽炎", "肝炎", "肠炎"]  # fmt: skip
HERBS = ["黄芪", "当归", "人参", "甘草", "茯苓", "白术", "川芎", "熟地黄", "生地黄", "桂枝", "麻黄", "柴胡", "黄连", "黄芩", "金银花", "连翘", "桔梗", "陈皮", "半夏", "枸杞子"]  # fmt: skip
QUESTION = "最近一周总是咳嗽，晚上睡不好，应该怎么办？"
LETTERS = "患者自述近来胃脘部胀闷隐痛食欲减退大便溏薄舌淡苔白脉细弱辨证属脾胃虚寒治宜温中健脾方选理中汤加减水煎分服忌食生冷油腻辛辣"


def prose(seed, clauses=20):
    """Clauses that no other seed has."""
    draw = random.Random(seed)
    return "".join("".join(draw.sample(LETTERS, 9)) + "，。"[at % 2] for at in range(clauses))


def chat(question, answer, system=""):
    turns = [{"role": "system", "content": system}] if system else []
    return {"messages": [*turns, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@pytest.fixture
def removed(tmp_path, prepared):
    """Lines that are removed as near duplicates."""

    def run(kind, records, **options):
        path = tmp_path / "a.jsonl"
        path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records), "utf-8")
        _, _, rejects = prepared(kind, path, skip=("repetition",), **options)
        return [one["line"] for one in rejects if one["step"] == "near"]

    return run


TEMPLATE = "请根据下面的要求回答问题，条理清楚，语言通俗易懂，并说明理由。"
SYSTEM = "你是一名经验丰富的中医，请根据患者的描述，给出辨证、治法和方药，并说明注意事项。" * 5


@pytest.mark.parametrize("form", ["chat", "text", "prompts", "long", "four of each"])
def test_filled_templates_stay(removed, form):
    pairs = [(disease, herb) for disease in DISEASES for herb in HERBS]
    assert len(pairs) == 400
    asked = [TEMPLATE * 5 + f"{disease}患者能服用{herb}吗？" for disease, herb in pairs]
    if form == "chat":
        assert removed("chat", [chat(one, ADVICE, SYSTEM) for one in asked]) == []
    elif form == "text":
        assert removed("text", [{"text": one + ADVICE} for one in asked]) == []
    elif form == "prompts":
        assert removed("prompts", [{"prompt": one} for one in asked]) == []
    elif form == "long":
        assert removed("text", [{"text": prose(1, 60) + one + prose(2, 60)} for one in asked]) == []
    else:  # a name that few rows have, and a second one of two characters
        names = ["".join(random.Random(n).sample(LETTERS, 2)) for n in range(100)]
        uses = ["用法", "忌口", "产地", "价格"]
        texts = [TEMPLATE * 5 + f"介绍一下{name}的{use}。" + ADVICE for name in names for use in uses]
        assert removed("text", [{"text": text} for text in texts]) == []


def test_chats_that_share_a_system_message_stay(removed):
    chats = [chat(prose(n, 2), prose(n + 5000, 3), SYSTEM[:188]) for n in range(1837)]
    assert len(SYSTEM[:188]) == 188
    assert removed("chat", chats) == []


@pytest.mark.parametrize("numbers", [("一", "两", "三", "四"), (1, 2, 3, 4), (0.5, 1.5, 2.5, 15)])
def test_questions_that_differ_in_numbers_stay(removed, numbers):
    doses = [f"体重{weight}公斤，每日服药{times}次，每次多少？" for weight in range(10, 40) for times in numbers]
    assert len(doses) == 120
    assert removed("chat", [chat(TEMPLATE + one, ADVICE) for one in doses]) == []
    assert removed("text", [{"text": prose(1, 10) + one + ADVICE * 3} for one in doses]) == []
    assert removed("text", [{"text": prose(n // 4, 10) + one} for n, one in enumerate(doses)]) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("孕妇感冒以后可以服用这种药吗", "孕妇感冒以后不可以服用这种药吗"),
        ("左侧肩膀疼痛了三天应该怎么处理", "右侧肩膀疼痛了三天应该怎么处理"),
        ("服用阿莫西林以后出现皮疹怎么办", "服用阿奇霉素以后出现皮疹怎么办"),
        ("长期偏头痛的患者日常应该注意什么", "长期头痛的患者日常应该注意什么"),
        ("体温38.5度要不要马上吃退烧药", "体温39.5度要不要马上吃退烧药"),
        ("血压高达160怎么办", "血压高达1.60怎么办"),
        ("先吃饭，三天后再吃药怎么办", "先吃药，三天后再吃饭怎么办"),
    ],
)
def test_what_makes_another_statement_stays(removed, one, other):
    assert removed("chat", [chat(one, ADVICE), chat(other, ADVICE)]) == []
    assert removed("prompts", [{"prompt": one}, {"prompt": other}]) == []
    assert removed("text", [{"text": one}, {"text": other}]) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("每次服用5毫克", "每次服用10毫克"),
        ("可以服用", "不可以服用"),
        ("对阿莫西林过敏", "对阿奇霉素过敏"),
        ("感染甲肝。甲肝可自愈", "感染乙肝。乙肝可自愈"),  # in two places
        ("用ACEI类药物", "用ARB类药物"),
        ("主要异常为贫血", "主要异常为黄疸"),
        ("胸片示左肺结节", "胸片示右肺结节"),
        ("近来血压升高", "近来血压降低"),
        ("给予黄芪煎服", "给予当归煎服"),
        ("伴有发热咳痰", "伴有咳痰"),
        ("可见红肿", "可见轻度红肿"),
    ],
)
def test_long_texts_that_differ_in_a_number_or_name_stay(removed, one, other):
    texts = [{"text": prose(1) + text + "。" + prose(2)} for text in (one, other)]
    assert removed("text", texts) == []


@pytest.mark.parametrize(
    "other",
    [
        "最近一周总是咳嗽,晚上睡不好,应该怎么办?",
        "最近一周 总是咳嗽 晚上睡不好 应该怎么办",
        "最近一周总是咳嗽，晚上睡不好了，应该怎么办呢？",
        "您好，请问最近一周总是咳嗽，晚上睡不好，怎么办呀？谢谢",
        "最近一周总是咳嗽，晚上睡不好，该如何办？",
        "晚上睡不好，最近一周总是咳嗽，应该怎么办？",
    ],
)
def test_other_wordings_go(removed, other):
    others = [chat(f"{disease}{herb}", f"{herb}{disease}") for disease in DISEASES for herb in HERBS[:3]]
    assert removed("chat", [chat(QUESTION, ADVICE), *others, chat(other, ADVICE + " ")]) == [62]
    assert removed("prompts", [{"prompt": QUESTION}, {"prompt": "别的问题"}, {"prompt": other}]) == [3]
    assert removed("text", [{"text": QUESTION + ADVICE}, {"text": other + ADVICE}]) == [2]


@pytest.mark.parametrize(
    "change",
    [
        [("医生", "大夫")],
        [("孩子", "小孩")],
        [("医生", "大夫"), ("孩子", "小孩")],
        [("反复发作", "反反复复发作")],
        [("孩子反复", "孩子已经反复"), ("医生", "医师")],
    ],
)
def test_long_rows_with_one_or_two_other_words_go(removed, change):
    text = prose(1) + "医生说要注意饮食。" + prose(2) + "孩子反复发作。"
    other = text
    for old, new in change:
        assert old in text
        other = other.replace(old, new)
    some = [{"text": prose(n)} for n in range(3, 40)]
    assert removed("text", [{"text": text}, *some, {"text": other}]) == [39]
    clauses = other.split("。")
    assert removed("text", [{"text": text}, *some, {"text": "。".join([*clauses[5:], *clauses[:5]])}]) == [39]
    assert removed("chat", [chat(text, ADVICE), chat(other, ADVICE)]) == [2]
    assert removed("chat", [chat(text, ADVICE), chat(other, ADVICE + "多喝水。")]) == []


def test_pairs_are_reported(tmp_path, prepared):
    path = tmp_path / "a.jsonl"
    texts = [QUESTION + ADVICE, "别的" + ADVICE, QUESTION.replace("？", "") + ADVICE]
    path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), "utf-8")
    outcome, _, [reject] = prepared("text", path)
    assert reject == {
        "file": str(path),
        "line": 3,
        "step": "near",
        "reason": f"near duplicate of {path}:1",
        "text": texts[2],
        "kept": texts[0],
    }
    [example] = outcome.report["examples"]["near"]
    assert (example["kept"], example["text"]) == (texts[0], texts[2])
    page = (tmp_path / "out/_report.html").read_text("utf-8")
    assert texts[0] in page
    assert texts[2] in page


def test_answers_that_differ_are_merged_on_request_only(removed):
    rows = [chat(QUESTION, "多喝水。"), chat(QUESTION + "！", ADVICE)]
    assert removed("chat", rows) == []
    assert removed("chat", rows, near_answers="any") == [2]
    pairs = [
        {"prompt": QUESTION, "chosen": answer, "rejected": "不知道。"}
        for answer in ("多喝水。", "多休息。", "多喝水！")
    ]
    assert removed("preference", pairs) == [3]
    assert removed("preference", pairs, near_answers="any") == [2, 3]


@settings(deadline=None)
@given(st.text("咳嗽头痛3一，。 的吗aB不", min_size=1, max_size=20), st.integers(0, 20), st.sampled_from("，。 、的吗"))
def test_punctuation_and_particles_never_tell_rows_apart(text, place, letter):
    if not (place and text[place - 1 : place + 1].isascii()):  # a blank between ASCII letters makes two words
        texts = ("头痛发热" + text, "头痛发热" + text[:place] + letter + text[place:])
        one, other = fingerprints([{"text": one} for one in texts], "same")[0]
        assert (one == other).any()


@settings(deadline=None)
@given(st.text("咳嗽头痛3一，。的aB不", min_size=1, max_size=20), st.integers(0, 19), st.sampled_from("咳3一不a"))
def test_numbers_negations_and_content_tell_rows_apart(text, place, letter):
    texts = ("头痛发热" + text, "头痛发热" + text[:place] + letter + text[place:])
    one, other = fingerprints([{"text": one} for one in texts], "same")[0]
    assert not (one == other).any()


def test_a_row_names_one_that_is_kept(removed, tmp_path):
    text = prose(1) + "孩子反复发作。"
    reworded = text.replace("孩子", "小孩")
    rows = [text, reworded, reworded.replace("。", " "), text.replace("，", "；")]
    assert removed("text", [{"text": one} for one in rows]) == [2, 3, 4]
    rejects = [json.loads(line) for line in (tmp_path / "out/_rejects.jsonl").read_text("utf-8").splitlines()]
    assert {one["reason"] for one in rejects} == {f"near duplicate of {tmp_path}/a.jsonl:1"}
