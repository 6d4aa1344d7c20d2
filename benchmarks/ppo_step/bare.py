"""python -m benchmarks.ppo_step.bare SETTINGS: times `LLM.generate` and `reload_weights` of bare vLLM.

Runs in a separate process on the requests in a run's journal, with the run's engine settings and without our code
around vLLM.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
from safetensors.torch import load_file

from actors.config import OverlappedRolloutConfig
from actors.inference.vllm_settings import CPU_ENVIRONMENT, ENVIRONMENT, engine_arguments, with_concurrency

if TYPE_CHECKING:
    from vllm import LLM

RELOADS = 5


def main() -> None:
    """Writes times in seconds: `generate`, one per journal file, for its requests; `reload`, one per weight reload."""
    given = json.loads(sys.argv[1])
    os.environ.update({**ENVIRONMENT, **CPU_ENVIRONMENT})
    from vllm import LLM, SamplingParams, TokensPrompt

    rollout = OverlappedRolloutConfig.model_validate_json(given["rollout"])
    llm = LLM(
        model=given["model"],
        distributed_executor_backend="uni",
        logprobs_mode="processed_logprobs",
        disable_log_stats=True,
        **engine_arguments(with_concurrency(rollout.engine, Path(given["model"])), on_gpus=False),
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
                ignore_eos=True,  # the same lengths as in the journal
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
    answer = {"generate": seconds[1:], "reload": _reload(llm, Path(given["model"]))[1:]}
    Path(given["answer"]).write_text(json.dumps(answer))


def _reload(llm: LLM, folder: Path) -> list[float]:
    """Returns the time of each `reload_weights` call, in seconds, with tensors in this process and the engine's dtype.

    The first call is a warm-up.
    """
    dtype = llm.llm_engine.model_config.dtype
    weights = {name: w.to(dtype) for path in folder.glob("*.safetensors") for name, w in load_file(path).items()}
    seconds = []
    for _ in range(1 + RELOADS):
        begun = time.perf_counter()
        llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights.items()})
        seconds.append(time.perf_counter() - begun)
    return seconds


if __name__ == "__main__":
    main()
