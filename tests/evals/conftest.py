"""A small clinic's held-out tables and models with random weights, too small to know anything and quick to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data import tables
from data.tables import write_table

TEXTS = [f"第{n}号病人头痛发热，建议多休息，按时服用布洛芬，三天后到内科复诊。" for n in range(40)]


def user(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


def rows_of(table: str) -> list[dict[str, Any]]:
    """Twelve rows of each held-out table."""
    drug = {"type": "药物", "start": 0, "end": 3, "text": "布洛芬"}
    flaws = ["cut_off", "rude"]
    make = {
        "pretrain": lambda n: {"text": TEXTS[n] * (1 + n % 2)},
        "choice": lambda n: {
            "question": f"{n}号病人用什么药？",
            "options": ["布洛芬", "内科", "头痛发热", "休息"],
            "answer": n % 4,
            "subject": "药物" if n % 3 else "科室",
        },
        "ner": lambda n: {"text": f"布洛芬吃了{n}天", "entities": [drug]},
        "open": lambda n: {"question": f"{n}号病人怎么办？", "reference": TEXTS[n]},
        "prompts": lambda n: {"prompt": user(f"{n}号病人头痛怎么办？")},
        "preference": lambda n: {
            "prompt": user(f"{n}号病人头痛怎么办？"),
            "chosen": "建议多休息。",
            "rejected": "建议多" if n % 2 == 0 else "别来烦我了。",
            "flaw": flaws[n % 2],
        },
    }[table]
    return [make(n) for n in range(12)]


@pytest.fixture(scope="session")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every table that a task reads."""
    folder = tmp_path_factory.mktemp("clinic")
    for name in ("pretrain", "choice", "ner", "open", "prompts", "preference"):
        table = pa.Table.from_pylist(rows_of(name), getattr(tables, name.upper()))
        write_table(table, folder / f"{name}.heldout.parquet")
    return folder


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    from data.tokenizer.training import train_tokenizer

    return train_tokenizer(TEXTS, names=["布洛芬", "头痛"], vocabulary=290)
