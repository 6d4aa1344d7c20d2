"""One vLLM engine in this process: token ids in, token ids and log-probabilities out. CPU and GPU alike."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from actors.config import EngineConfig
from cluster.paths import require_dir

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams


_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the scheduler in this process: on two cores 20 times as fast
    "VLLM_LOGGING_LEVEL": "WARNING",
}
_CPU_ENVIRONMENT = {
    "TORCHDYNAMO_DISABLE": "1",  # vLLM compiles two small functions even with enforce_eager, up to 20 s
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # OMP_NUM_THREADS decides; binding would fight other roles for a core
}


@dataclass(frozen=True)
class Answer:
    """What the engine generated for one prompt."""

    tokens: list[int]  # the end mark included, if it came
    logprobs: list[float]  # of each token, under the distribution it was sampled from
    finished: bool  # ended by itself; otherwise cut at the length limit


class Engine:
    """A vLLM `LLM` that runs inside the calling process, with weights that can be replaced."""

    def __init__(self, model: str, config: EngineConfig, seed: int = 0, weight_transfer: str | None = None) -> None:
        """Loads `model`, a Hugging Face folder, and warms the engine up.

        `weight_transfer` names one of vLLM's own backends ("nccl", "ipc") when weights will come that way.
        Raises ConfigError, one line, for a missing folder.
        """
        folder = require_dir(model, "engine model", "name a folder in Hugging Face format")
        os.environ.update(_ENVIRONMENT)
        if not torch.cuda.is_available():
            os.environ.update(_CPU_ENVIRONMENT)
        from vllm import LLM

        hardware: dict[str, Any] = (
            {"gpu_memory_utilization": config.gpu_memory_utilization}
            if torch.cuda.is_available()
            else {"enforce_eager": True, "kv_cache_memory_bytes": config.kv_cache_bytes}
        )
        if weight_transfer:
            hardware["weight_transfer_config"] = {"backend": weight_transfer}
        self._llm = LLM(
            model=str(folder),
            dtype=config.dtype,
            max_model_len=config.max_model_len,
            max_num_seqs=config.max_concurrent,
            seed=seed,
            distributed_executor_backend="uni",
            logprobs_mode="processed_logprobs",
            disable_log_stats=True,
            **hardware,
        )
        self.max_model_len = config.max_model_len
        self.generate([[1, 2]], seeds=[0], max_new_tokens=2)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        seeds: Sequence[int | None],
        max_new_tokens: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> list[Answer]:
        """One answer a prompt. Temperature 0 is greedy; a prompt's own seed makes its answer repeatable.

        Raises ValueError for a prompt that leaves no room for `max_new_tokens` in the context.
        """
        from vllm import SamplingParams

        for index, prompt in enumerate(prompts):
            if len(prompt) + max_new_tokens > self.max_model_len:
                raise ValueError(
                    f"prompt {index} has {len(prompt)} tokens and {max_new_tokens} more are to follow, "
                    f"but the context is {self.max_model_len}: shorten the prompt or generate less"
                )
        parameters = [
            SamplingParams(
                temperature=temperature, top_p=top_p, max_tokens=max_new_tokens, seed=seed, logprobs=0, detokenize=False
            )
            for seed in seeds
        ]
        return [_answer(output) for output in self._run(prompts, parameters)]

    def score(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probabilities of every token but the first of each sequence, under the raw model."""
        from vllm import SamplingParams

        parameters = SamplingParams(max_tokens=1, prompt_logprobs=0, temperature=0.0, detokenize=False)
        outputs = self._run(sequences, [parameters] * len(sequences))
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

    def _run(self, prompts: Sequence[Sequence[int]], parameters: list[SamplingParams]) -> list[RequestOutput]:
        inputs = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        return self._llm.generate(inputs, parameters, use_tqdm=False)


def _answer(output: RequestOutput) -> Answer:
    completion = output.outputs[0]
    assert completion.logprobs is not None
    logprobs = [
        position[token].logprob for position, token in zip(completion.logprobs, completion.token_ids, strict=True)
    ]
    return Answer(list(completion.token_ids), logprobs, completion.finish_reason == "stop")


def _prompt_logprobs(output: RequestOutput) -> list[float]:
    assert output.prompt_logprobs is not None
    assert output.prompt_token_ids is not None
    pairs = zip(output.prompt_logprobs[1:], output.prompt_token_ids[1:], strict=True)
    return [position[token].logprob for position, token in pairs if position is not None]
