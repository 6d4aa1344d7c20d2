"""How well masking finds personal data, on lines written for it; `pytest -s` prints the tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.prepare.privacy.kinds import KINDS
from data.prepare.privacy.score import main, read_lines, read_marked, score, table
from data.tables import DataError

HERE = Path(__file__).parent
# The later lines were written after the patterns, the third after patterns that had been repaired with the second.
FILES = [HERE / "marked.txt", HERE / "marked_later.txt", HERE / "marked_third.txt"]


def test_precision_and_recall_of_every_kind():
    result = score(line for file in FILES for line in read_lines(file))
    print(table(result))
    for kind in KINDS:
        assert result.marked[kind] >= 10, kind
        assert result.precision(kind) >= 0.95, (kind, result.wrong)
        assert result.recall(kind) >= 0.95, (kind, result.wrong)


def test_marks_give_the_text_and_the_places():
    text, spans = read_marked("电话：{phone|13812345678}，谢谢")
    assert text == "电话：13812345678，谢谢"
    assert spans == {(3, 14, "phone")}
    with pytest.raises(DataError, match="unknown kind 'fax'"):
        read_marked("{fax|1}")


def test_the_command_names_what_is_wrong(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("电话：{phone|13812345678}\n编号：{phone|12}\n", "utf-8")
    assert main([str(tmp_path / "mine.txt")]) == 0
    assert "missed: phone 12; by mistake: nothing" in capsys.readouterr().out
    (tmp_path / "mine.txt").write_text("\n{fax|1}\n", "utf-8")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "mine.txt")])
    assert "mine.txt:2: unknown kind 'fax'" in capsys.readouterr().err
