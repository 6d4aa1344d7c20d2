"""Check of the whole command: steps of GRPO through Ray, with all roles on one device in turns."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from actors.config import ArchitectureConfig
from actors.model_folder.config_json import read_shape
from actors.modeling.models import new_causal_lm
from actors.sizing.throughput import training_flops
from benchmarks.gpu_check.checks import SkippedError
from benchmarks.gpu_check.large import PEAK_TFLOPS
from configs.base import REPOSITORY, dump

STEPS = 3
PATIENCE_S = 230.0
_TEXTS = [f"第{n}号病人头痛，建议多休息，按时服药。" * (1 + n % 3) for n in range(40)]
_REWARD = "def reward(sample):\n    return float('休' in sample['response'])\n"


def grpo(gpu: bool) -> dict[str, Any]:
    """Runs `python -m trainers.ppo` with GRPO, for a model of 1.3 billion random parameters on a GPU.

    Policy, reference, and engine share the device and take turns. Reports the phases of the last step, the speed of
    generation, and how long the update's FLOPs would take at the GPU's peak. The first step's KL to the reference must be
    0, up to rounding.
    """
    for package in ("ray", "vllm"):
        if find_spec(package) is None:
            raise SkippedError(f"{package} is not installed")
    with TemporaryDirectory() as name:
        folder = Path(name)
        _save_model(folder / "model", gpu)
        _save_recipe(folder, gpu)
        done = subprocess.run(
            [sys.executable, "-m", "trainers.ppo", "--config", str(folder / "recipe.yaml")],
            cwd=folder,
            env={**os.environ, "CHIMED_RUNS": str(folder / "runs"), "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S * (1 if gpu else 4),
        )
        assert done.returncode == 0, f"the command ended with status {done.returncode}: {done.stderr[-2000:]}"
        return _found(folder, gpu)


def _save_model(folder: Path, gpu: bool) -> None:
    from data.tokenizer.training import train_tokenizer
    from trainers.runs.export import export_model

    tokenizer = train_tokenizer(_TEXTS, names=["头痛"], vocabulary=290)
    sizes = {"hidden_size": 2048, "intermediate_size": 5504, "layers": 24, "heads": 16, "kv_heads": 16}
    small = {"hidden_size": 64, "intermediate_size": 128, "layers": 2, "heads": 2, "kv_heads": 1}
    shape = ArchitectureConfig.model_validate({**(sizes if gpu else small), "context": 2048})
    ids = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    model = new_causal_lm(shape, len(tokenizer), *ids, seed=0)
    export_model(folder, tokenizer, model.to(torch.bfloat16 if gpu else torch.float32).save_pretrained)


def _save_recipe(folder: Path, gpu: bool) -> None:
    import pyarrow as pa

    from data.tables import PROMPTS, write_table
    from trainers.config.rlhf import PPOConfig

    rows = [{"prompt": [{"role": "user", "content": f"病人{n}头痛怎么办"}]} for n in range(64)]
    write_table(pa.Table.from_pylist(rows, PROMPTS), folder / "prompts.parquet")
    (folder / "reward.py").write_text(_REWARD, encoding="utf-8")
    placement = {"cpus_per_rank": 0.4, "gpus_per_rank": 1 if gpu else 0, "threads": 2 if gpu else 1}
    model = {"model": str(folder / "model"), "placement": placement, "micro_batch_tokens": 32_768 if gpu else 1024}
    zero = {"stage": 0, "gradient_checkpointing": gpu}
    engine = {"max_model_len": 2048 if gpu else 256, "kv_cache_bytes": 2**26, "gpu_memory_utilization": 0.5}
    config = PPOConfig.model_validate(
        {
            "name": "grpo",
            "prompts": {"train": (str(folder / "prompts.parquet"),), "max_tokens": 64},
            "steps": STEPS,
            "prompts_per_step": 32 if gpu else 4,
            "samples_per_prompt": 8 if gpu else 2,
            "algorithm": {"name": "grpo", "kl_coef": 0.01},
            "colocate": "all",
            "sleep": True,
            "policy": {**model, "zero": zero, "optimizer": {"lr": 1e-6, "schedule": "constant"}},
            "reference": model,
            "reward_function": {
                "placement": {"cpus_per_rank": 0.1},
                "functions": {"rest": {"file": str(folder / "reward.py")}},
            },
            "rollout": {"placement": placement, "engine": engine, "max_new_tokens": 1024 if gpu else 16},
            "checkpoint_every": STEPS,
        }
    )
    dump(config, folder / "recipe.yaml")


def _found(folder: Path, gpu: bool) -> dict[str, Any]:
    import pyarrow.parquet as pq

    from trainers.runs.folder import read_metrics

    first, *_, last = read_metrics(folder / "runs" / "grpo")
    kl = first["kl_to_reference_per_token"]
    assert abs(kl) <= (0.01 if gpu else 1e-6), f"the first step's KL to the reference is {kl:.3g} nats per token"
    rows = pq.read_table(folder / "runs" / "grpo" / "journal" / f"step-{STEPS - 1:08}.parquet").to_pylist()
    prompts, responses = ([len(row[column]) for row in rows] for column in ("prompt", "response"))
    lengths = [a + b for a, b in zip(prompts, responses, strict=True)]
    shape = read_shape(folder / "model")
    flops = training_flops(shape, lengths, sum(responses))
    phases = {name: round(value, 3) for name, value in last.items() if name.startswith("seconds")}
    kind = torch.cuda.get_device_name() if gpu else ""
    peak = next((rate for name, rate in PEAK_TFLOPS.items() if name in kind), None)
    return {
        "parameters": shape.parameters(),
        "first_kl_per_token": kl,
        "publish_drift": last["publish_drift"],
        "last_step": phases,
        "generated_tokens": sum(responses),
        "generated_tokens_per_s": round(sum(responses) / last["seconds_generate"]),
        "update_tflops": round(flops / last["seconds_update"] / 1e12, 3),
        "update_seconds_at_peak": round(flops / peak / 1e12, 3) if peak else None,
    }
