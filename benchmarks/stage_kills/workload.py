"""The stages that are disturbed, each with small inputs, as recipes of one rank and one thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from transformers import AutoModelForCausalLM

from benchmarks.chaos.workload import make_inputs
from configs.base import dump
from data.chat import encode_chat
from data.tables import PREFERENCE, PRETRAIN, SFT, write_table
from trainers.config.stages import STAGES
from trainers.runs.export import export_model, load_tokenizer

ROWS, BATCH = 64, 4
PLACEMENT = {"cpus_per_rank": 0.4, "threads": 1}
OPTIMIZER = {"lr": 3e-3}


def write_inputs(folder: Path) -> None:
    """Writes the models and tables of all stages to `folder`; they are the same every time."""
    make_inputs(folder)  # model, scorer, and prompts
    prompts = [[_turn("user", f"病人{n}头痛怎么办")] for n in range(ROWS)]
    replies = ["多休息，" * (1 + n % 4) for n in range(ROWS)]
    tables: dict[str, tuple[pa.Schema, list[dict[str, Any]]]] = {
        "texts": (PRETRAIN, [{"text": f"第{n}号病人头痛，{reply}" * 8} for n, reply in enumerate(replies)]),
        "chats": (
            SFT,
            [
                {"messages": [*prompt, _turn("assistant", reply)], "task": "qa"}
                for prompt, reply in zip(prompts, replies, strict=True)
            ],
        ),
        "pairs": (
            PREFERENCE,
            [
                {"prompt": prompt, "chosen": reply, "rejected": "头痛。", "flaw": ""}
                for prompt, reply in zip(prompts, replies, strict=True)
            ],
        ),
    }
    for name, (schema, rows) in tables.items():
        write_table(pa.Table.from_pylist(rows, schema), folder / f"{name}.parquet")
    _write_tuned(folder, [row["messages"] for row in tables["chats"][1]])


def _write_tuned(folder: Path, chats: list[list[dict[str, str]]]) -> None:
    """Writes a model that has learned to end its responses, because rejection sampling selects no others."""
    tokenizer = load_tokenizer(folder / "model")
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    torch.set_num_threads(1)  # two that wait for each other are many times slower on a machine with other load
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    encoded = [encode_chat(tokenizer, chat) for chat in chats]
    longest = max(len(ids) for ids, _ in encoded)
    ids = torch.tensor([[*tokens, *[0] * (longest - len(tokens))] for tokens, _ in encoded])
    learned = torch.tensor([[*mask, *[0] * (longest - len(mask))] for _, mask in encoded])
    for _ in range(60):
        model(input_ids=ids, labels=ids.where(learned == 1, -100)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    export_model(folder / "tuned", tokenizer, model.save_pretrained)


def write_recipe(folder: Path, stage: str, name: str) -> Path:
    """Writes the recipe of `stage` as the run `name`, on the inputs in `folder`; returns its path."""
    config = STAGES[stage].model_validate({"name": name, **SETTINGS[stage](folder)})
    path = folder / f"{name}.yaml"
    dump(config, path)
    return path


def _supervised(table: str, **more: Any) -> Callable[[Path], dict[str, Any]]:
    def settings(folder: Path) -> dict[str, Any]:
        tables = (str(folder / f"{table}.parquet"),)
        sizes = {"block_tokens": 64} if table == "texts" else {"max_tokens": 128}
        return {
            "model": str(folder / "model"),
            "data": {"train": tables, "heldout": tables, **sizes},
            "batch_size": BATCH,
            "micro_batch_tokens": 512,
            "eval_every": 10,
            "checkpoint_every": 4,
            "optimizer": OPTIMIZER,
            "placement": PLACEMENT,
            **more,
        }

    return settings


def _ppo(folder: Path) -> dict[str, Any]:
    model, scorer = str(folder / "model"), str(folder / "scorer")
    trained = {"optimizer": OPTIMIZER, "placement": PLACEMENT}
    return {
        "policy": {"model": model, **trained},
        "critic": {"model": scorer, **trained},
        "reference": {"model": model, "placement": PLACEMENT},
        "reward": {"model": scorer, "placement": PLACEMENT},
        "rollout": _rollout(16),
        "prompts": _prompts(folder),
        "steps": 8,
        "prompts_per_step": 8,
        "algorithm": {"minibatches": 2},
        "checkpoint_every": 3,
        "samples_every": 8,
    }


def _rejection(folder: Path) -> dict[str, Any]:
    return {
        "model": str(folder / "tuned"),
        "reward": {"model": str(folder / "scorer"), "placement": PLACEMENT},
        "rollout": _rollout(32),
        "prompts": _prompts(folder),
        "rounds": 2,
        "prompts_per_round": 24,
        "prompts_per_step": 8,
        "sft": {
            "data": {"heldout": (str(folder / "chats.parquet"),), "max_tokens": 256},
            "batch_size": 2,
            "checkpoint_every": 3,
            "optimizer": OPTIMIZER,
            "placement": PLACEMENT,
        },
    }


def _rollout(tokens: int) -> dict[str, Any]:
    engine = {"max_model_len": 512, "kv_cache_bytes": 2**26}
    return {"max_new_tokens": tokens, "engine": engine, "placement": PLACEMENT}


def _prompts(folder: Path) -> dict[str, Any]:
    return {"train": (str(folder / "prompts.parquet"),), "max_tokens": 64}


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


SETTINGS: Mapping[str, Callable[[Path], dict[str, Any]]] = {
    "pretrain": _supervised("texts"),
    "sft": _supervised("chats", epochs=3, export="both"),
    "reward": _supervised("pairs", epochs=2),
    "dpo": _supervised("pairs", epochs=2),
    "ppo": _ppo,
    "rejection": _rejection,
}
"""Returns the settings of each stage for inputs in a folder."""
