from __future__ import annotations

import builtins
import json
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook

from configs.errors import ConfigError
from data.files.lines import Unreadable
from data.files.sheets import read_sheets, require_reader
from data.prepare.__main__ import main


def workbook(path: Path, rows: list[list[Any]]) -> Path:
    book = Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path


def test_cells_are_what_csv_would_say(tmp_path: Path) -> None:
    book = Workbook()
    sheet = book.active
    sheet.append(["题目", "A", "B", "备注"])
    sheet.append(["白细胞 10.5×10⁹/L", 3, 0.1, None])
    sheet.append([1e-5, 12345678901234567890, -2.50, True])
    sheet.append([date(2026, 11, 28), datetime(2026, 11, 28, 8, 30), 0.125, "  x "])
    sheet["C4"].number_format = "0.0%"
    book.save(tmp_path / "a.xlsx")
    found = list(read_sheets(tmp_path / "a.xlsx"))
    assert [bad for _, _, bad in found] == ["", "", ""]
    assert [list((record or {}).values()) for _, record, _ in found] == [
        ["白细胞 10.5×10⁹/L", "3", "0.1", ""],
        ["0.00001", "12345678901234570000", "-2.5", "TRUE"],  # what openpyxl keeps of so long a number
        ["2026-11-28", "2026-11-28 08:30:00", "12.5%", "  x "],
    ]
    assert [row for row, _, _ in found] == [2, 3, 4]


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    book = Workbook()
    sheet = book.active
    sheet.title = "题库"
    for row in (["问题", "答案"], [], ["a", "b", "c"], ["=A1", "b"], ["#N/A", "b"], ["a", "b"]):
        sheet.append(row)
    hidden = book.create_sheet("草稿")
    hidden.sheet_state = "hidden"
    hidden.append(["x"])
    book.create_sheet("无名").append(["问题", None, "答案"])
    book.create_sheet("二").append(["问题"])
    book["二"].append(["c"])
    book.save(tmp_path / "a.xlsx")
    found = list(read_sheets(tmp_path / "a.xlsx"))
    assert [(row, record) for row, record, bad in found if not bad] == [
        (6, {"问题": "a", "答案": "b"}),
        (9, {"问题": "c"}),  # six rows of the first sheet, one of the third
    ]
    assert [bad for _, _, bad in found if bad] == [
        "sheet 题库, row 3: 3 cells; the header has 2 columns",
        "sheet 题库, row 4: A4 is a formula without a stored result; open the file in a spreadsheet program and save it",
        "sheet 题库, row 5: A5 is #N/A",
        "sheet 草稿 is hidden and left out",
        "sheet 无名, row 1: the sheet cannot be read: its first row must name every column once",
    ]


def test_what_is_no_workbook_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(Unreadable, match="not readable as a workbook"):
        list(read_sheets(tmp_path / "a.xlsx"))


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=6).filter(
    lambda text: not text.startswith(("=", "#"))
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(TEXTS, min_size=3, max_size=3), min_size=1, max_size=5))
def test_texts_come_back(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]) -> None:
    file = workbook(tmp_path_factory.mktemp("sheet") / "a.xlsx", [["a", "b", "c"], *rows])
    assert [list(record.values()) for _, record, bad in read_sheets(file) if record and not bad] == rows


def test_an_exam_in_a_workbook_is_prepared(tmp_path: Path) -> None:
    rows = [
        ["Question", "A", "B", "Answer"],
        ["正常体温约为？", "36.5℃", "40℃", "A"],
        ["成人每分钟心跳约为？", 20, 75, "B"],
    ]
    file = workbook(tmp_path / "exam.xlsx", rows)
    assert main(["--input", str(file), "--kind", "chat", "--out", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "_report.json").read_text())
    assert (report["records"], report["rows"]) == (2, 2)


def test_without_the_package_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *others: Any) -> Any:
        if name == "openpyxl":
            raise ImportError(name)
        return real(name, *others)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConfigError, match="pip install openpyxl"):
        require_reader()
