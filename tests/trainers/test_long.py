"""Sequences of 4,096 tokens through pretraining and SFT, to a model that Transformers and vLLM read alike."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM

from actors.model_folder.folders import ModelFolder
from data.chat import encode_chat
from data.tables import PRETRAIN, SFT, write_table
from evals.models.engine import Engine
from storage.paths import runs_root
from trainers.runs.folder import read_metrics
from trainers.supervised.driver import main
from trainers.supervised.tasks.pretrain import PretrainStage
from trainers.supervised.tasks.sft import SftStage

pytestmark = pytest.mark.long

LENGTH = 4096
MOST_BYTES = 1.5 * 2**30
ARCHITECTURE = {"hidden_size": 64, "intermediate_size": 128, "layers": 2, "heads": 2, "kv_heads": 1, "context": LENGTH}


def chat(tokenizer: Any, tokens: int) -> list[dict[str, str]]:
    """Of so many tokens exactly: a letter that the tokenizer has not met is one."""
    messages = [{"role": "user", "content": "病人头痛怎么办"}, {"role": "assistant", "content": "x"}]
    messages[1]["content"] *= 1 + tokens - len(encode_chat(tokenizer, messages)[0])
    assert len(encode_chat(tokenizer, messages)[0]) == tokens
    return messages


@pytest.fixture(scope="module")
def trained(
    clinic: Path, tokenizer: Any, ray_cluster: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Path]]:
    """The runs' folders."""
    folder = tmp_path_factory.mktemp("long")
    texts = [{"text": "头痛病人应多休息，按时服药。" * 400} for _ in range(3)]
    write_table(pa.Table.from_pylist(texts, PRETRAIN), folder / "texts.parquet")
    chats = [{"messages": chat(tokenizer, LENGTH), "task": "qa"}] * 2
    write_table(pa.Table.from_pylist(chats, SFT), folder / "chats.parquet")
    common = {"batch_size": 1, "max_steps": 2, "epochs": 9, "micro_batch_tokens": LENGTH, "optimizer": {"lr": 1e-2}}
    sections = {
        "pretrain": {
            **common,
            "name": "pretrain",
            "architecture": ARCHITECTURE,
            "tokenizer": str(clinic / "tokenizer"),
            "data": {name: [str(folder / "texts.parquet")] for name in ("train", "heldout")},
        },
        "sft": {
            **common,
            "name": "sft",
            "model": str(folder / "runs" / "pretrain" / "model"),  # Ray's workers have their own runs/
            "data": {name: [str(folder / "chats.parquet")] for name in ("train", "heldout")},
        },
    }
    (folder / "recipe.yaml").write_text(json.dumps(sections))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHIMED_RUNS", str(folder / "runs"))
        main(PretrainStage, "pretrain", ["--config", str(folder / "recipe.yaml")])
        main(SftStage, "sft", ["--config", str(folder / "recipe.yaml")])
        yield {name: runs_root() / name for name in sections}


def test_blocks_and_chats_of_4096_tokens_are_learned_within_their_memory(trained: dict[str, Path]) -> None:
    for run in trained.values():
        lines = list(read_metrics(run))
        assert [line["tokens"] for line in lines] == [LENGTH, LENGTH]
        assert lines[1]["loss"] < lines[0]["loss"]
        assert lines[1]["peak_memory_bytes"] < MOST_BYTES
        print(f"{run.name}: peak {lines[1]['peak_memory_bytes'] / 2**20:,.0f} MiB")


def test_transformers_and_vllm_read_the_exports_alike(trained: dict[str, Path]) -> None:
    ids = torch.randint(5, 290, (LENGTH - 1,), generator=torch.Generator().manual_seed(0))
    engine = Engine()
    try:
        for run in trained.values():
            engine.load(ModelFolder(str(run / "model")))
            (ours,) = engine.score([ids.tolist()])
            with torch.no_grad():
                logits = AutoModelForCausalLM.from_pretrained(run / "model")(ids[None]).logits[0, :-1]
            theirs = logits.log_softmax(-1).gather(1, ids[1:, None])[:, 0].tolist()
            assert ours == pytest.approx(theirs, abs=1e-4)
    finally:
        engine.close()
