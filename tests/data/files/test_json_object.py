from __future__ import annotations

from pathlib import Path

import pytest

from configs.errors import ConfigError
from data.files.json_object import read_json_object


def test_an_object_is_returned(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"科室": [1, 2]}', encoding="utf-8")
    assert read_json_object(tmp_path / "a.json", "copy it again") == {"科室": [1, 2]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "not readable as JSON: .*No such file"),
        (b"{", "not readable as JSON: "),
        (b"\xff", "not readable as JSON: "),
        (b"[1]", "is not a JSON object"),
    ],
)
def test_a_file_that_is_none_is_refused_with_what_to_do(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^model: {path}: {said}.*; copy it again$"):
        read_json_object(path, "copy it again", "model")
    with pytest.raises(ConfigError, match=f"^{path}: {said}.*; copy it again$"):
        read_json_object(path, "copy it again")
