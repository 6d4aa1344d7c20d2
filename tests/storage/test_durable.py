from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from storage.durable import write_json


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    write_json({"检查": 1.5}, file)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json({"a": [1, math.nan]}, file)
    assert json.loads(file.read_text(encoding="utf-8")) == {"检查": 1.5}
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
