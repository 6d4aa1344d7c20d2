from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.choice import measure

pytestmark = pytest.mark.slow


def test_both_sides_weigh_the_same_questions_alike(make_model: Callable[..., Path], tmp_path: Path) -> None:
    row = "第{}题，头痛怎么办？,多休息,服药,喝水,不管,{}\n"
    for name, count in (("内科.csv", 6), ("内科.dev.csv", 2)):
        rows = "".join(row.format(n, "ABCD"[n % 4]) for n in range(count))
        (tmp_path / name).write_text(f"Question,A,B,C,D,Answer\n{rows}", encoding="utf-8")
    model = make_model("long", max_position_embeddings=1024)
    found = measure(
        Namespace(model=str(model), data=str(tmp_path), shots=2, limit=5, threads=1, loops=["loop", "loop_question"])
    )
    assert (found["questions"], found["shots"], found["same_choice"]) == (5, 2, {"loop": 1.0, "loop_question": 1.0})
    assert max(found["largest_difference"].values()) < 1e-4
    assert set(found["speedup"]) == {"loop", "loop_question"}
    assert all(value > 0 for value in found["questions_per_second"].values())
