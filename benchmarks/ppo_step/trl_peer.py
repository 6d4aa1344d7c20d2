"""python -m benchmarks.ppo_step.trl_peer SETTINGS: times the same step in TRL's GRPOTrainer."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch


def main() -> None:
    """Runs the requested number of steps and writes the duration of each, in seconds."""
    given = json.loads(sys.argv[1])
    torch.set_num_threads(given["threads"])
    import pyarrow.parquet as pq
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from benchmarks.ppo_step.reward import reward

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.ends = [0.0]

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.ends = [time.perf_counter()]

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.perf_counter())
            print(f"trl: step {len(self.ends) - 1}, {self.ends[-1] - self.ends[-2]:.1f} s", file=sys.stderr, flush=True)

    prompts = [{"prompt": row["prompt"]} for path in given["prompts"] for row in pq.read_table(path).to_pylist()]
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=given["model"],
            processing_class=AutoTokenizer.from_pretrained(given["model"]),
            reward_funcs=lambda completions, **_: [reward({"response": c[0]["content"]}) for c in completions],
            train_dataset=Dataset.from_list(prompts),
            args=GRPOConfig(
                output_dir=folder,
                use_cpu=True,
                bf16=given["dtype"] == "bfloat16",
                gradient_checkpointing=False,  # TRL's default is True, which would only slow it down here
                per_device_train_batch_size=given["rows"],
                num_generations=given["samples"],
                max_completion_length=given["max_new_tokens"],
                learning_rate=given["lr"],
                max_steps=given["steps"],
                save_strategy="no",
                report_to="none",
                logging_steps=1,
            ),
            callbacks=[clock],
        )
        trainer.train()
    seconds = [end - begun for begun, end in zip(clock.ends, clock.ends[1:], strict=False)]
    Path(given["answer"]).write_text(json.dumps(seconds))


if __name__ == "__main__":
    main()
