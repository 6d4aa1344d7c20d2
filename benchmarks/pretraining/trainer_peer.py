"""python -m benchmarks.pretraining.trainer_peer SETTINGS: the same steps with transformers.Trainer.

Trainer gets the same blocks, with labels for the same tokens, so it minimizes the same loss. Position ids restart at
every document, and Transformers derives the attention mask between documents from them. It also selects the attention
implementation.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch

from actors.modeling.packed import PackedBatch
from benchmarks.pretraining.bare import steps
from benchmarks.pretraining.workload import Workload
from trainers.config.supervised import PretrainConfig
from trainers.supervised.tasks.pretrain import PretrainStage


def main() -> None:
    """Runs the steps and writes their seconds and losses."""
    job = json.loads(sys.argv[1])
    config = PretrainConfig.model_validate_json(job["config"])
    workload = Workload(**job["workload"])
    torch.set_num_threads(workload.threads)
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.ends = [time.perf_counter()]

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.perf_counter())

    blocks = [columns(batch) for step in steps(PretrainStage(config), config) for batch in step]
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=AutoModelForCausalLM.from_pretrained(config.model, dtype=torch.float32),
            args=TrainingArguments(
                output_dir=folder,
                use_cpu=not torch.cuda.is_available(),
                bf16=config.zero.dtype == "bfloat16",
                per_device_train_batch_size=1,
                gradient_accumulation_steps=workload.blocks,
                max_steps=config.max_steps or 0,
                learning_rate=config.optimizer.lr,
                lr_scheduler_type="constant",
                weight_decay=config.optimizer.weight_decay,
                adam_beta1=config.optimizer.betas[0],
                adam_beta2=config.optimizer.betas[1],
                max_grad_norm=config.optimizer.max_grad_norm,
                optim="adamw_torch_fused",
                save_strategy="no",
                report_to="none",
                logging_steps=1,
                disable_tqdm=True,
                train_sampling_strategy="sequential",
            ),
            train_dataset=blocks,
            data_collator=lambda rows: rows[0],
            callbacks=[clock],
        )
        trainer.train()
    seconds = [end - begun for begun, end in pairwise(clock.ends)]
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    Path(job["answer"]).write_text(json.dumps({"seconds": seconds, "losses": losses}))


def columns(batch: PackedBatch) -> dict[str, torch.Tensor]:
    """Returns a block as inputs for Transformers, (1, T) each; the first token of a document is not a label."""
    labels = batch.input_ids.clone()
    labels[[0, *accumulate(batch.lengths)][:-1]] = -100
    positions = torch.cat([torch.arange(length) for length in batch.lengths])
    return {"input_ids": batch.input_ids[None], "position_ids": positions[None], "labels": labels[None]}


if __name__ == "__main__":
    main()
