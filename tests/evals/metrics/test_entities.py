from __future__ import annotations

import random

import pytest
from seqeval.metrics import classification_report
from sklearn.metrics import precision_recall_fscore_support

from evals.metrics.entities import Gold, micro_scores, overlap_scores, read_entities

TYPES = ("疾病", "症状", "药物", "检查")
A, B, C = ("药物", "布洛芬"), ("症状", "头痛"), ("疾病", "感冒")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("药物:布洛芬;症状:头痛", [A, B]),
        ("药物：布洛芬；症状：头痛。", [A, B]),
        ("1. 药物：布洛芬\n- 症状: 头痛、头痛", [A, B]),
        ('{"药物": ["布洛芬"], "症状": "头痛"}', [A, B]),
        ('实体如下：[{"type": "药物", "text": "布洛芬"}, {"type": "年龄", "text": "三岁"}]', [A]),
        ("药物:布洛芬;疾病:无", [A]),
        ("药物:布洛芬，头痛药", [A, ("药物", "头痛药")]),
        (" 症状:反酸、;检查: ", [("症状", "反酸")]),
        ("您好，请及时就医。", None),
        ("科室:眼科;药物", None),
        ("无", []),
        ("没有。", []),
        ("{}", []),
        ("我不知道", None),
        ("", None),
        ("年龄:三岁", None),
        ("{坏的 json", None),
    ],
)
def test_reads_what_models_write(answer: str, expected: list[tuple[str, str]] | None) -> None:
    assert read_entities(answer, TYPES) == expected


def test_micro_scores_by_hand() -> None:
    scores = micro_scores([{A, B}, {C}, set()], [{A}, {C, B}, {A}])
    assert scores == {
        "precision": pytest.approx(2 / 3),  # A and C of A, B, C
        "recall": pytest.approx(2 / 4),
        "f1": pytest.approx(2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2)),
        "right": 2,
        "found": 3,
        "gold": 4,
    }


def test_an_entity_is_matched_once_within_its_sentence_by_type_and_text() -> None:
    assert micro_scores([[A, A, A]], [[A, A]])["right"] == 2
    assert micro_scores([[A], []], [[], [A]])["right"] == 0
    assert micro_scores([[("症状", "布洛芬")]], [[A]])["right"] == 0


def test_nothing_found_and_nothing_to_find_are_zero_not_an_error() -> None:
    assert micro_scores([[]], [[A]])["f1"] == 0.0
    assert micro_scores([[A]], [[]])["recall"] == 0.0
    assert micro_scores([[]], [[]]) == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "right": 0, "found": 0, "gold": 0}


def tagged(rng: random.Random) -> list[tuple[str, int, int]]:
    """Spans of a sentence of 40 characters, none touching another."""
    spans, place = [], 0
    while (place := place + rng.randint(1, 6)) + 4 < 40:
        end = place + rng.randint(1, 4)
        spans.append((rng.choice(TYPES), place, end))
        place = end
    return spans


def bio(spans: list[tuple[str, int, int]]) -> list[str]:
    tags = ["O"] * 40
    for kind, start, end in spans:
        tags[start:end] = [f"B-{kind}"] + [f"I-{kind}"] * (end - start - 1)
    return tags


def test_exact_scores_equal_seqeval_and_scikit_learn() -> None:
    """On sentences that never repeat a character, where text and place say the same."""
    rng = random.Random(0)
    sentence = "".join(chr(0x4E00 + n) for n in range(40))
    gold = [tagged(rng) for _ in range(60)]
    found = [[s for s in spans if rng.random() < 0.7] + tagged(rng)[:1] for spans in gold]
    found = [
        [s for i, s in enumerate(spans) if not any(s[1] <= o[2] and o[1] <= s[2] for o in spans[:i])] for spans in found
    ]

    def named(spans: list[tuple[str, int, int]]) -> list[tuple[str, str]]:
        return [(kind, sentence[start:end]) for kind, start, end in spans]

    ours = micro_scores(map_all(named, found), map_all(named, gold))
    theirs = classification_report(map_all(bio, gold), map_all(bio, found), output_dict=True, zero_division=0)
    assert ours["precision"] == pytest.approx(theirs["micro avg"]["precision"])
    assert ours["recall"] == pytest.approx(theirs["micro avg"]["recall"])
    assert ours["f1"] == pytest.approx(theirs["micro avg"]["f1-score"])
    candidates = [
        (entity in one, entity in other)
        for one, other in zip(map_all(set, map_all(named, gold)), map_all(set, map_all(named, found)), strict=True)
        for entity in one | other
    ]
    truth, guess = zip(*candidates, strict=True)
    assert (ours["precision"], ours["recall"], ours["f1"]) == pytest.approx(
        precision_recall_fscore_support(truth, guess, average="binary")[:3]
    )
    assert 0.2 < ours["f1"] < 0.95


def map_all(function, values):  # type: ignore[no-untyped-def]
    return [function(value) for value in values]


def test_overlap_counts_a_shared_character_of_the_same_type() -> None:
    text = "服布洛芬片后头痛"
    gold = [[Gold("药物", 1, 4), Gold("症状", 6, 8)]]
    exact = overlap_scores([text], [[("药物", "布洛芬片"), ("症状", "痛")]], gold)
    assert (exact["precision"], exact["recall"], exact["f1"]) == (1.0, 1.0, 1.0)
    wrong = overlap_scores([text], [[("症状", "布洛芬"), ("药物", "阿司匹林")]], gold)
    assert (wrong["precision"], wrong["recall"], wrong["f1"], wrong["absent"]) == (0.0, 0.0, 0.0, 1)
    half = overlap_scores([text], [[("药物", "片"), ("症状", "痛"), ("症状", "头痛")]], gold)
    assert half["precision"] == pytest.approx(2 / 3)
    assert half["recall"] == pytest.approx(1 / 2)


def test_overlap_is_never_below_exact() -> None:
    rng = random.Random(1)
    sentence = "".join(chr(0x4E00 + n) for n in range(40))
    for _ in range(50):
        gold, found = tagged(rng), tagged(rng)
        texts = [(kind, sentence[start:end]) for kind, start, end in found]
        exact = micro_scores([texts], [[(kind, sentence[start:end]) for kind, start, end in gold]])
        assert overlap_scores([sentence], [texts], [[Gold(*span) for span in gold]])["f1"] >= exact["f1"]
