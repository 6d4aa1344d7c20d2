from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hub import Hub

from configs.errors import ConfigError
from data.hub_tables import chosen, hub_table_files, pinned_table
from data.tables import PRETRAIN, read_table, write_table

SPLITS = ["README.md", "data/test-00000-of-00001.parquet", "data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]  # fmt: skip
SUBSETS = ["en/train.jsonl", "en/test.jsonl", "zh/train.jsonl", "zh/validation.jsonl"]


@pytest.mark.parametrize(
    ("files", "inside", "found"),
    [
        (SPLITS, "train", SPLITS[2:]),
        (SPLITS, "test", SPLITS[1:2]),
        (SPLITS, SPLITS[1], SPLITS[1:2]),
        (["train.jsonl", "README.md"], "", ["train.jsonl"]),
        (["part-0.parquet", "part-1.parquet"], "", ["part-0.parquet", "part-1.parquet"]),
        (SUBSETS, "zh/train", ["zh/train.jsonl"]),
        (SUBSETS, "zh/dev", ["zh/validation.jsonl"]),
        (["data/train/0.parquet", "data/test/0.parquet"], "train", ["data/train/0.parquet"]),
        (["pretraining.jsonl", "train.jsonl"], "train", ["train.jsonl"]),
    ],
)
def test_files_of_a_split(files: list[str], inside: str, found: list[str]) -> None:
    assert chosen(files, inside, "hf://datasets/org/name") == found


@pytest.mark.parametrize(
    ("files", "inside", "said"),
    [
        (SPLITS, "", "has test, train; name one, as in hf://datasets/org/name/train"),
        (SPLITS, "validation", "has no validation; it has test, train"),
        (SUBSETS, "train", r"stands for en/\*.jsonl, zh/\*.jsonl; name one"),
        (["train.jsonl", "train.parquet"], "train", "name one folder or file of them"),
        (["README.md", "train.csv"], "train", "it has no .parquet or .jsonl files"),
    ],
)
def test_an_ambiguous_or_missing_split_is_one_line(files: list[str], inside: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        chosen(files, inside, "hf://datasets/org/name")


def test_a_dataset_is_read_at_its_commit(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for split, texts in (("train", ["甲", "乙"]), ("test", ["丙"])):
        write_table(pa.table({"text": texts}, PRETRAIN), folder / f"{split}.parquet")
    commit = hub.commit("datasets", "org/name", folder)
    name = pinned_table("hf://datasets/org/name/train")
    assert name == f"hf://datasets/org/name@{commit}/train"
    write_table(pa.table({"text": ["丁"]}, PRETRAIN), folder / "train.parquet")
    hub.commit("datasets", "org/name", folder)
    assert read_table([name], PRETRAIN)["text"].to_pylist() == ["甲", "乙"]
    assert [path.name for path in hub_table_files(f"hf://datasets/org/name@{commit}/test")] == ["test.parquet"]


@pytest.mark.parametrize("name", ["hf://models/org/name", "hf://datasets/name", "hf://datasets/"])
def test_another_form_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"is not the name of a table; write hf://datasets/org/name"):
        read_table([name], PRETRAIN)
