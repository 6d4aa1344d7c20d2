from __future__ import annotations

from pathlib import Path

from data.prepare.reading.sources import find_files


def test_a_circle_of_symbolic_links_is_read_once(tmp_path: Path) -> None:
    inner = tmp_path / "texts" / "inner"
    inner.mkdir(parents=True)
    (inner / "a.jsonl").write_text('{"text": "多休息。"}\n')
    (inner / "up").symlink_to(tmp_path / "texts")
    (inner / "itself").symlink_to(inner)
    (tmp_path / "texts" / "z.jsonl").symlink_to(inner / "a.jsonl")
    assert find_files([str(tmp_path / "texts")]) == ([str(inner / "a.jsonl")], [])


def test_a_link_to_a_folder_outside_is_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a.jsonl").write_text('{"text": "按时服药。"}\n')
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "link").symlink_to(tmp_path / "outside")
    assert find_files([str(tmp_path / "texts")])[0] == [str(tmp_path / "texts" / "link" / "a.jsonl")]
