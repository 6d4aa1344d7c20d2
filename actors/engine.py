"""One vLLM engine in this process: token ids in, token ids and log-probabilities out. CPU and GPU alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from actors.config import EngineConfig
from cluster.paths import require_dir

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams


Bar = bool | Callable[..., Any]
"""No progress bar, vLLM's, or what makes one (called like tqdm)."""

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the scheduler in this process: on two cores 20 times as fast
    "VLLM_LOGGING_LEVEL": "ERROR",  # every reload would else warn of layers that have no weights
}
CPU_ENVIRONMENT = {
    "TORCHDYNAMO_DISABLE": "1",  # vLLM compiles two small functions even with enforce_eager, up to 20 s
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # OMP_NUM_THREADS decides; binding would fight other roles for a core
}


@dataclass(frozen=True)
class Answer:
    """What the engine generated for one prompt."""

    tokens: list[int]  # the end mark included, if it came
    logprobs: list[float]  # of each token, under the distribution it was sampled from; empty if not asked for
    finished: bool  # ended by itself; otherwise cut at the length limit


def engine_arguments(config: EngineConfig, on_gpus: bool) -> dict[str, Any]:
    """vLLM's own arguments for an engine of ours, in this process or behind the endpoint."""
    arguments: dict[str, Any] = {
        "dtype": config.dtype,
        "max_model_len": config.max_model_len,
        "max_num_seqs": config.max_concurrent,
    }
    if on_gpus:
        return {**arguments, "gpu_memory_utilization": config.gpu_memory_utilization}
    return {
        **arguments,
        "enforce_eager": True,
        "kv_cache_memory_bytes": config.kv_cache_bytes,
        # A prompt prefilled in pieces rewinds its seeded generator, which PyTorch cannot do on a CPU.
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(config.max_model_len, 4096),
    }


class Engine:
    """A vLLM `LLM` that runs inside the calling process, with weights that can be replaced."""

    def __init__(self, model: str, config: EngineConfig, seed: int = 0, weight_transfer: str | None = None) -> None:
        """Loads `model`, a Hugging Face folder, and warms the engine up.

        `weight_transfer` names one of vLLM's own backends ("nccl", "ipc") when weights will come that way.
        Raises ConfigError, one line, for a missing folder.
        """
        folder = require_dir(model, "engine model", "name a folder in Hugging Face format")
        os.environ.update(ENVIRONMENT)
        if not torch.cuda.is_available():
            os.environ.update(CPU_ENVIRONMENT)
        from vllm import LLM

        arguments = engine_arguments(config, torch.cuda.is_available())
        if weight_transfer:
            arguments["weight_transfer_config"] = {"backend": weight_transfer}
        self._llm = LLM(
            model=str(folder),
            seed=seed,
            distributed_executor_backend="uni",
            logprobs_mode="processed_logprobs",
            disable_log_stats=True,
            use_tqdm_on_load=False,
            **arguments,
        )
        self.max_model_len = config.max_model_len
        self.generate([[1, 2]], seeds=[0], max_new_tokens=2)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        seeds: Sequence[int | None],
        max_new_tokens: int | Sequence[int],
        temperature: float = 1.0,
        top_p: float = 1.0,
        logprobs: bool = True,
        progress: Bar = False,
    ) -> list[Answer]:
        """One answer a prompt, of `max_new_tokens` tokens at most (one limit for all, or one each).

        Temperature 0 is greedy; a prompt's own seed makes its answer repeatable, in any company. Without `logprobs`
        the answers have none, which is faster. Raises ValueError for a prompt that leaves too little of the context.
        """
        from vllm import SamplingParams

        limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)
        for index, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
            if len(prompt) + limit > self.max_model_len:
                raise ValueError(
                    f"prompt {index} has {len(prompt)} tokens and {limit} more are to follow, "
                    f"but the context is {self.max_model_len}: shorten the prompt or generate less"
                )
        parameters = [
            SamplingParams(
                temperature=temperature,
                top_p=top_p,
                max_tokens=limit,
                seed=seed,
                logprobs=0 if logprobs else None,
                detokenize=False,
            )
            for seed, limit in zip(seeds, limits, strict=True)
        ]
        return [_answer(output) for output in self._run(prompts, parameters, progress)]

    def score(self, sequences: Sequence[Sequence[int]], progress: Bar = False) -> list[list[float]]:
        """Log-probabilities of every token but the first of each sequence, under the raw model.

        A sequence may be one token shorter than the context: vLLM always generates one.
        """
        from vllm import SamplingParams

        parameters = SamplingParams(max_tokens=1, prompt_logprobs=0, temperature=0.0, detokenize=False)
        outputs = self._run(sequences, [parameters] * len(sequences), progress)
        return [_prompt_logprobs(output) for output in outputs]

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Replaces the model's weights by (name, tensor) pairs in Hugging Face names; cached prefixes are dropped."""
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": self._with_tied_head(weights)})
        self.drop_prefixes()

    def _with_tied_head(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Repeats a tied embedding as the output head: on CPU vLLM keeps a repacked copy of it for the head, and a
        reload that does not name the head leaves that copy as it was.
        """
        tied = self._llm.llm_engine.model_config.hf_config.tie_word_embeddings
        for name, tensor in weights:
            yield name, tensor
            if tied and name.endswith("embed_tokens.weight"):
                yield "lm_head.weight", tensor

    def drop_prefixes(self) -> None:
        """Forgets cached prefixes, which belong to the old weights."""
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("vLLM kept prefixes of the old weights: requests were still running during the update")

    def control(self, method: str, *arguments: Any) -> Any:
        """Calls one of vLLM's own weight-transfer methods, e.g. `start_weight_update`."""
        return getattr(self._llm, method)(*arguments)

    def close(self) -> None:
        """Ends the engine and frees its memory."""
        from vllm.distributed import cleanup_dist_env_and_memory

        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        cleanup_dist_env_and_memory()

    def _run(
        self, prompts: Sequence[Sequence[int]], parameters: list[SamplingParams], progress: Bar
    ) -> list[RequestOutput]:
        if not prompts:
            return []
        from vllm import RequestOutput, TokensPrompt

        requests = [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in prompts]
        self._llm.enqueue(requests, parameters, use_tqdm=False)
        outputs: list[RequestOutput] = self._llm.wait_for_completion(RequestOutput, use_tqdm=progress)
        return outputs


def _answer(output: RequestOutput) -> Answer:
    completion = output.outputs[0]
    steps = zip(completion.logprobs or [], completion.token_ids, strict=bool(completion.logprobs))
    logprobs = [position[token].logprob for position, token in steps]
    return Answer(list(completion.token_ids), logprobs, completion.finish_reason == "stop")


def _prompt_logprobs(output: RequestOutput) -> list[float]:
    assert output.prompt_logprobs is not None
    assert output.prompt_token_ids is not None
    pairs = zip(output.prompt_logprobs[1:], output.prompt_token_ids[1:], strict=True)
    return [position[token].logprob for position, token in pairs if position is not None]
