"""One vLLM engine in this process: token ids in, token ids and log-probabilities out. CPU and GPU alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from actors.config import EngineConfig, InFlight
from actors.inference.cpu_sampler import draw
from actors.inference.requests import SPARE, Request, Requests
from actors.model_folder.source import model_dir

if TYPE_CHECKING:
    from vllm import RequestOutput


Bar = bool | Callable[..., Any]
"""No progress bar, vLLM's, or what makes one (called like tqdm)."""

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the scheduler in this process: on two cores 20 times as fast
    "VLLM_LOGGING_LEVEL": "ERROR",  # every reload would else warn of layers that have no weights
}
CPU_ENVIRONMENT = {
    "TORCHDYNAMO_DISABLE": "1",  # vLLM compiles two small functions even with enforce_eager, up to 20 s
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # OMP_NUM_THREADS decides; binding would fight other roles for a core
    # Every number of rows has its own compiled multiplications. Of oneDNN's 1,024 that are kept, an engine grew by 1.1 GB.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
}


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn."""

    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0
    top_k: int = 0  # 0 is all
    min_p: float = 0.0
    stop: tuple[int, ...] = ()  # tokens that end an answer, beside the model's end mark
    logprobs: bool = True  # without them it is faster


@dataclass(frozen=True)
class Answer:
    """What the engine generated for one prompt."""

    tokens: list[int]  # the end mark or stop token included, if it came
    logprobs: list[float]  # of each token, under the distribution it was sampled from; empty if not asked for
    finished: bool  # ended by itself; otherwise cut at the length limit
    weights: int = 0  # how often the engine's weights had changed when it was asked for
    changes: tuple[int, ...] = ()  # how many tokens it had at every change since then


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
    """A vLLM `LLM` that runs inside the calling process, with weights that can be replaced.

    One thread asks for answers and steps the engine; where weights change under running requests others may, too.
    """

    def __init__(
        self,
        model: str,
        config: EngineConfig,
        seed: int = 0,
        weight_transfer: str | None = None,
        in_flight: InFlight = "none",
    ) -> None:
        """Loads `model`, a Hugging Face folder, and warms the engine up.

        `weight_transfer` names one of vLLM's own backends ("nccl", "ipc") when weights will come that way; `in_flight`
        says what becomes of running requests when weights change. Raises ConfigError, one line, for a missing folder.
        """
        folder = model_dir(model, "engine model")
        os.environ.update(ENVIRONMENT)
        if not torch.cuda.is_available():
            os.environ.update(CPU_ENVIRONMENT)
        from vllm import LLM

        arguments = engine_arguments(config, torch.cuda.is_available())
        if weight_transfer:
            arguments["weight_transfer_config"] = {"backend": weight_transfer}
        if in_flight != "none":
            arguments["max_num_seqs"] += SPARE
            arguments["async_scheduling"] = False  # else a token of the old weights may come after the change
        self._llm = LLM(
            model=str(folder),
            seed=seed,
            distributed_executor_backend="uni",
            logprobs_mode="processed_logprobs",
            disable_log_stats=True,
            use_tqdm_on_load=False,
            **arguments,
        )
        if not torch.cuda.is_available():
            self._llm.collective_rpc(_draw_by_races)
        self.max_model_len = config.max_model_len
        self._requests = Requests(self._llm.llm_engine, in_flight, config.max_concurrent)
        self.turns = self._requests.turns
        """Who takes a turn has the engine between two of its steps; to be held while weights change."""
        self.generate([[1, 2]], seeds=[0], max_new_tokens=2)

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self._llm.get_tokenizer()

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        seeds: Sequence[int | None],
        max_new_tokens: int | Sequence[int],
        temperature: float = 1.0,
        top_p: float = 1.0,
        stop: tuple[int, ...] = (),
        logprobs: bool = True,
        progress: Bar = False,
    ) -> list[Answer]:
        """One answer a prompt, in order; see `stream`."""
        answers: list[Answer | None] = [None] * len(prompts)
        sampling = Sampling(temperature, top_p, stop=stop, logprobs=logprobs)
        with _bar(progress, len(prompts)) as advance:
            for index, answer in self.stream(prompts, seeds=seeds, max_new_tokens=max_new_tokens, sampling=sampling):
                answers[index] = answer
                advance()
        return [answer for answer in answers if answer is not None]

    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        seeds: Sequence[int | None],
        max_new_tokens: int | Sequence[int],
        sampling: Sampling,
    ) -> Iterator[tuple[int, Answer]]:
        """One answer a prompt with the prompt's index, each as soon as it is finished.

        `max_new_tokens` is one limit for all, or one each. A prompt's own seed makes its answer repeatable, in any
        company. Raises ValueError for a prompt that leaves too little of the context.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)
        for index, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
            if len(prompt) + limit > self.max_model_len:
                raise ValueError(
                    f"prompt {index} has {len(prompt)} tokens and {limit} more are to follow, "
                    f"but the context is {self.max_model_len}: shorten the prompt or generate less"
                )
        parameters = [
            SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                min_p=sampling.min_p,
                stop_token_ids=list(sampling.stop),
                max_tokens=limit,
                seed=seed,
                logprobs=0 if sampling.logprobs else None,
                flat_logprobs=True,
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            for seed, limit in zip(seeds, limits, strict=True)
        ]
        for request, output in self._requests.outputs(prompts, parameters):
            yield request.index, _answer(request, output)

    def score(self, sequences: Sequence[Sequence[int]], progress: Bar = False) -> list[list[float]]:
        """Log-probabilities of every token but the first of each sequence, under the raw model.

        A sequence may be one token shorter than the context: vLLM always generates one.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        parameters = SamplingParams(
            max_tokens=1,
            prompt_logprobs=0,
            flat_logprobs=True,
            temperature=0.0,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        scores: list[list[float]] = [[]] * len(sequences)
        with _bar(progress, len(sequences)) as advance:
            for request, output in self._requests.outputs(sequences, [parameters] * len(sequences), first=True):
                scores[request.index] = _flat(output.prompt_logprobs)
                advance()
        return scores

    def weigh(
        self, prompts: Sequence[Sequence[int]], choices: Sequence[Sequence[int]], progress: Bar = False
    ) -> list[list[float]]:
        """For each prompt the log-probabilities of its `choices` as the next token, under the raw model.

        One request a prompt, and what prompts share is computed once: asking for log-probabilities of the prompt's own
        tokens, as `score` does, would keep vLLM from using what it has cached.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        parameters = [
            SamplingParams(
                max_tokens=1,
                logprob_token_ids=list(tokens),
                temperature=0.0,
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            for tokens in choices
        ]
        weights: list[list[float]] = [[]] * len(prompts)
        with _bar(progress, len(prompts)) as advance:
            for request, output in self._requests.outputs(prompts, parameters):
                (told,) = output.outputs[0].logprobs
                weights[request.index] = [told[token].logprob for token in choices[request.index]]
                advance()
        return weights

    def forget_prefixes(self) -> None:
        """Makes the next prompts be computed from their beginning, as those of a new engine are."""
        self._llm.reset_prefix_cache()

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Replaces the model's weights by (name, tensor) pairs in Hugging Face names; see `weights_changed`."""
        self.begin_weights()
        self.take_weights(weights)
        self.end_weights()

    def begin_weights(self) -> None:
        """Makes the model ready to take new weights, in as many parts as they come in."""
        self._llm.collective_rpc(_begin_weights)

    def take_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Takes a part of the weights, in Hugging Face names. None may come twice."""
        self._llm.collective_rpc(_take_weights, args=(list(self._with_tied_head(weights)),))

    def end_weights(self) -> None:
        """Ends what `begin_weights` began. A weight that did not come stays as it was."""
        self._llm.collective_rpc(_end_weights)
        self.weights_changed()

    def _with_tied_head(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Repeats a tied embedding as the output head: on CPU vLLM keeps a repacked copy of it for the head, and a
        reload that does not name the head leaves that copy as it was.
        """
        tied = self._llm.llm_engine.model_config.hf_config.tie_word_embeddings
        for name, tensor in weights:
            yield name, tensor
            if tied and name.endswith("embed_tokens.weight"):
                yield "lm_head.weight", tensor

    @property
    def weights(self) -> int:
        """How often the weights have changed since the start."""
        return self._requests.weights

    def weights_changed(self) -> None:
        """Forgets what the old weights left; called for when all of the new ones are there. See `Requests`."""
        self._requests.weights_changed()

    def control(self, method: str, *arguments: Any) -> Any:
        """Calls one of vLLM's own weight-transfer methods, e.g. `start_weight_update`."""
        return getattr(self._llm, method)(*arguments)

    def close(self) -> None:
        """Ends the engine and frees its memory."""
        from vllm.distributed import cleanup_dist_env_and_memory

        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        cleanup_dist_env_and_memory()


# In the engine's worker: how tokens are drawn, and the parts of vLLM's `reload_weights`, which takes all weights at once.
def _draw_by_races(worker: Any) -> None:
    from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler

    sampler = worker.model_runner.sampler.topk_topp_sampler
    if sampler.forward != TopKTopPSampler.forward_cpu.__get__(sampler):
        raise RuntimeError(
            "vLLM draws tokens by something else than its TopKTopPSampler.forward_cpu: actors.inference.cpu_sampler cannot stand for it"
        )
    sampler.forward = draw


def _begin_weights(worker: Any) -> None:
    from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

    with _vllm_settings(worker):
        initialize_layerwise_reload(worker.get_model())


def _take_weights(worker: Any, weights: list[tuple[str, Tensor]]) -> None:
    with _vllm_settings(worker):
        worker.get_model().load_weights(weights)


def _end_weights(worker: Any) -> None:
    from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

    with _vllm_settings(worker):
        finalize_layerwise_reload(worker.get_model(), worker.model_config)


def _vllm_settings(worker: Any) -> AbstractContextManager[None]:
    from vllm.config import set_current_vllm_config

    return set_current_vllm_config(worker.vllm_config)


@contextmanager
def _bar(progress: Bar, total: int) -> Iterator[Callable[[], object]]:
    """What to call after each of `total` requests, so that a bar shows it if one is wanted."""
    if not progress or not total:
        yield lambda: None
        return
    from tqdm import tqdm  # type: ignore[import-untyped]

    make: Callable[..., Any] = tqdm if progress is True else progress
    bar = make(total=total, desc="Processed prompts", dynamic_ncols=True)
    try:
        yield bar.update
    finally:
        bar.close()


def _answer(request: Request, output: RequestOutput) -> Answer:
    completion = output.outputs[0]
    logprobs = _flat(completion.logprobs) if completion.logprobs is not None else []
    finished = completion.finish_reason == "stop"
    return Answer(list(completion.token_ids), logprobs, finished, request.weights, request.changes)


def _flat(logprobs: Any) -> list[float]:
    """vLLM's flat log-probabilities, one a position where there is one, as a list."""
    values: list[float] = logprobs.logprobs
    return values
