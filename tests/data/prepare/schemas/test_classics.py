"""Labels of sections, found by how many sections they begin."""

from __future__ import annotations

import json

import pytest

from data.prepare.reading.readers import Found
from data.prepare.schemas.classics import section_labels, strip_section, with_labels


def section(label, number):
    return f"<目录>卷一\\上部\n\n<篇名>第{number}草\n\n{label}：味甘，平，第{number}种。\n"


@pytest.mark.parametrize("label", ["内容", "属性", "正文", "释名"])
def test_a_label_of_nearly_all_sections_is_found(label):
    book = ["<篇名>某本草\n书名：某本草\n", *(section(label, number) for number in range(3))]
    assert section_labels(book) == {label: 3}
    assert strip_section(book[1], [label]) == "第0草\n\n味甘，平，第0种。\n"


def test_a_label_of_some_sections_says_something():
    book = [section("主治" if number % 3 == 0 else f"产地{number}", number) for number in range(30)]
    assert section_labels(book) == {}
    assert section_labels([section("主治", 1)]) == {}


@pytest.mark.parametrize("mark", ["【{}】", "〔{}〕", "[{}]", "{}: ", "　　{}∶", "\n{}："])
@pytest.mark.parametrize("label", ["原文", "本草原文之内容如下", "Content"])
def test_labels_are_found_in_any_form(mark, label):
    book = [f"<篇名>第{number}草\n{mark.format(label)}味甘，第{number}种。\n" for number in range(3)]
    (found,) = section_labels(book)
    assert label in found
    assert [strip_section(one, [found]).split() for one in book] == [
        [f"第{number}草", f"味甘，第{number}种。"] for number in range(3)
    ]


def test_pictures_go_by_any_name():
    text = "<篇名>甲草\n\\r甲草图\\p01-2a3.bmp\\r见\\x乙\\x，\\ph1.JPG\\r丙"
    assert strip_section(text) == "甲草\n甲草图见乙，丙"
    for name in (
        "\\图1.webp\\",
        "\\卷一图.jpg",
        "zl_01.svg",
        "(p03.jpg)",
        "![图](p04.png)",
        "[img]a.gif[/img]",
        "<图>p02-1.png</图>",
    ):
        assert strip_section(f"<篇名>甲草\n味甘{name}，平") == "甲草\n味甘，平", name


def test_a_part_and_a_section_on_one_line_lose_no_text():
    assert strip_section("<目录>卷一<篇名>甲草\n味甘") == "甲草\n味甘"


def test_each_book_of_a_file_has_its_labels():
    texts = [section("内容", number) for number in range(300)] + [section("属性", number) for number in range(300)]
    records = [Found(line, {"text": text, "other": line}) for line, text in enumerate(texts, 1)]
    given = list(with_labels([Found(0, {"text": "一"}), *records, Found(9, None, "bad")]))
    assert [found for found, _ in given] == [Found(0, {"text": "一"}), *records, Found(9, None, "bad")]
    assert given[0][1] == {}
    for found, labels in given[1:-1]:
        assert "：" not in strip_section(found.record["text"], labels)
    assert sum(labels.get("属性", 0) for _, labels in given) == 300


def test_labels_are_reported(tmp_path, prepared):
    path = tmp_path / "book.jsonl"
    path.write_text("".join(json.dumps({"text": section("属性", n)}) + "\n" for n in range(5)), "utf-8")
    outcome, rows, _ = prepared("text", path, skip=("near",))
    assert outcome.report["section_labels"] == {str(path): {"属性": 5}}
    assert rows[0]["text"] == "第0草\n\n味甘，平，第0种。"
    assert "属性： 5" in (tmp_path / "out/_report.html").read_text("utf-8")
