"""python -m benchmarks.ppo_step.bare SETTINGS: vLLM's own `LLM.generate` on requests that a run has journalled.

A process of its own, with the engine settings of the run and nothing of ours around it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq

from actors.config import OverlappedRolloutConfig
from actors.engine import CPU_ENVIRONMENT, ENVIRONMENT, engine_arguments


def main() -> None:
    """Seconds for the requests of each journal file named in SETTINGS."""
    given = json.loads(sys.argv[1])
    os.environ.update({**ENVIRONMENT, **CPU_ENVIRONMENT})
    from vllm import LLM, SamplingParams, TokensPrompt

    rollout = OverlappedRolloutConfig.model_validate_json(given["rollout"])
    llm = LLM(
        model=given["model"],
        distributed_executor_backend="uni",
        logprobs_mode="processed_logprobs",
        disable_log_stats=True,
        **engine_arguments(rollout.engine, on_gpus=False),
    )
    seconds = []
    for path in map(Path, [given["files"][0], *given["files"]]):  # the first one warms up
        rows = pq.read_table(path).to_pylist()
        prompts = [TokensPrompt(prompt_token_ids=row["prompt"]) for row in rows]
        parameters = [
            SamplingParams(
                temperature=rollout.temperature,
                max_tokens=len(row["response"]),
                seed=row["seed"],
                ignore_eos=True,  # as many tokens as there, whatever the weights
                logprobs=0,
                detokenize=False,
            )
            for row in rows
        ]
        llm.reset_prefix_cache()
        begun = time.perf_counter()
        outputs = llm.generate(prompts, parameters, use_tqdm=False)
        seconds.append(time.perf_counter() - begun)
        assert [len(o.outputs[0].token_ids) for o in outputs] == [len(row["response"]) for row in rows]
    Path(given["answer"]).write_text(json.dumps(seconds[1:]))


if __name__ == "__main__":
    main()
