"""python -m benchmarks.pretraining.bare SETTINGS: the same steps as a plain PyTorch loop.

The loop uses neither DeepSpeed nor Ray nor a trainer. The forward pass is ours (attention within documents only, logits
only where a token is predicted). The rest follows PyTorch's documentation: fused AdamW, gradient clipping, and, for
bfloat16, fp32 master weights.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from actors.modeling.packed import PackedBatch
from benchmarks.pretraining.workload import Workload
from trainers.config.supervised import PretrainConfig
from trainers.supervised.tasks.pretrain import PretrainStage


def main() -> None:
    """Runs the steps and writes their seconds and losses."""
    job = json.loads(sys.argv[1])
    config = PretrainConfig.model_validate_json(job["config"])
    torch.set_num_threads(Workload(**job["workload"]).threads)
    stage = PretrainStage(config.model_copy(update={"zero": config.zero.model_copy(update={"stage": 0})}))  # no shards
    batches = list(steps(stage, config))
    module = stage.module().train()
    weights = list(module.parameters())
    half = config.zero.dtype == "bfloat16"
    masters = [weight.detach().float().requires_grad_() for weight in weights] if half else weights
    adamw = torch.optim.AdamW(
        [
            {"params": [p for p in masters if p.dim() >= 2], "weight_decay": config.optimizer.weight_decay},
            {"params": [p for p in masters if p.dim() < 2], "weight_decay": 0.0},
        ],
        lr=config.optimizer.lr,
        betas=config.optimizer.betas,
        eps=config.optimizer.eps,
        fused=True,
    )
    seconds, losses = [], []
    for micro_batches in batches:
        begun = time.perf_counter()
        terms = sum(len(batch.predict) for batch in micro_batches)
        total = 0.0
        for batch in micro_batches:
            loss = -module(batch)[0].sum() / terms
            loss.backward()
            total += loss.item()
        if half:
            for master, weight in zip(masters, weights, strict=True):
                assert weight.grad is not None
                master.grad, weight.grad = weight.grad.float(), None
        torch.nn.utils.clip_grad_norm_(masters, config.optimizer.max_grad_norm)
        adamw.step()
        adamw.zero_grad()
        if half:
            with torch.no_grad():
                for master, weight in zip(masters, weights, strict=True):
                    weight.copy_(master)
        seconds.append(time.perf_counter() - begun)
        losses.append(total)
    Path(job["answer"]).write_text(json.dumps({"seconds": seconds, "losses": losses}))


def steps(stage: PretrainStage, config: PretrainConfig) -> Iterator[list[PackedBatch]]:
    """Yields the micro-batches of every step, one per block, in the trainer's order."""
    examples = stage.examples()
    assert config.max_steps is not None
    for step in range(config.max_steps):
        rows = examples.order.of_step(step, config.batch_size)
        yield [stage.batch(examples.train, [row]) for row in rows]


if __name__ == "__main__":
    main()
