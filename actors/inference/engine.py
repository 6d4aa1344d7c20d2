"""One vLLM engine in this process, on CPU or GPU: token ids in, token ids and log-probabilities out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from actors.config import EngineConfig, InFlight, SleepLevel
from actors.inference import held_bits, reloading, tensor_parallel
from actors.inference.cpu_sampler import draw
from actors.inference.engine_memory import EngineMemory
from actors.inference.requests import SPARE, Request, Requests
from actors.inference.vllm_settings import CPU_ENVIRONMENT, ENVIRONMENT, engine_arguments, with_concurrency
from actors.model_folder.source import model_dir

if TYPE_CHECKING:
    from vllm import RequestOutput


Bar = bool | Callable[..., Any]
"""False for no progress bar, True for tqdm's, or a factory of progress bars that is called like tqdm."""


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters."""

    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0
    top_k: int = 0  # 0 is all
    min_p: float = 0.0
    stop: tuple[int, ...] = ()  # ids that end a response, in addition to the model's end-of-sequence token
    logprobs: bool = True  # False is faster


@dataclass(frozen=True)
class Response:
    """The response that the engine generated for one prompt."""

    tokens: list[int]  # including the end-of-sequence or stop token, if generated
    logprobs: list[float]  # of each token under the distribution it was sampled from, nats; empty if not requested
    finished: bool  # ended by an end-of-sequence or stop token; False: truncated at the length limit
    weights: int = 0  # number of weight changes of the engine before the request was submitted
    changes: tuple[int, ...] = ()  # tokens that the response had at every weight change since then


class Engine:
    """A vLLM `LLM` whose scheduler runs inside the calling process, with weights that can be replaced.

    So does the model, unless `tensor_parallel_size` is above 1; see `actors.inference.tensor_parallel`.

    One thread submits requests and steps the engine; with in-flight weight updates, several threads may.
    """

    def __init__(
        self,
        model: str,
        config: EngineConfig,
        seed: int = 0,
        weight_transfer: str | None = None,
        in_flight: InFlight = "none",
        sleep_level: SleepLevel = 0,
    ) -> None:
        """Loads `model` and warms up the engine.

        Args:
            model: a Hugging Face folder or Hub id.
            config: the engine's settings.
            seed: the engine's seed, for requests without a seed.
            weight_transfer: vLLM's weight-transfer backend ("nccl", "ipc"), if weights are sent through one.
            in_flight: what happens to running requests when weights change.
            sleep_level: what `memory` does with the weights when it frees them; 0 if it is not used.

        Raises:
            ConfigError: the model does not exist or cannot be loaded; see `model_dir`.
        """
        folder = model_dir(model, "engine model")
        config = with_concurrency(config, folder)
        os.environ.update({**ENVIRONMENT, **tensor_parallel.environment(config)})
        if not torch.cuda.is_available():
            os.environ.update(CPU_ENVIRONMENT)
        from vllm import LLM

        arguments = engine_arguments(config, torch.cuda.is_available()) | tensor_parallel.executor_arguments(config)
        most: int = arguments["max_num_seqs"]
        if weight_transfer:
            arguments["weight_transfer_config"] = {"backend": weight_transfer}
        if sleep_level and torch.cuda.is_available():
            arguments["enable_sleep_mode"] = True
        if in_flight != "none":
            arguments["max_num_seqs"] += SPARE
            arguments["async_scheduling"] = False  # otherwise a token of the old weights may arrive after the change
        self._llm = LLM(
            model=str(folder),
            seed=seed,
            logprobs_mode="processed_logprobs",
            disable_log_stats=True,
            use_tqdm_on_load=False,
            **arguments,
        )
        self._closing = tensor_parallel.exit_with_any_process(self._llm)
        if not torch.cuda.is_available():
            self._llm.collective_rpc(_prepare_on_cpus)
        self.max_model_len = config.max_model_len
        self._requests = Requests(self._llm.llm_engine, in_flight, most)
        self.lock = self._requests.lock
        """Lock that pauses the engine between two steps; hold it while weights change."""
        self._loading = Lock()
        self.bits: int | None = None
        """Sum of the bits of all parameters that the last change brought; see `actors.weight_bits`."""
        self.memory = EngineMemory(self._llm, sleep_level)
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
    ) -> list[Response]:
        """Generates one response per prompt, in order; see `stream`."""
        responses: list[Response | None] = [None] * len(prompts)
        sampling = Sampling(temperature, top_p, stop=stop, logprobs=logprobs)
        with _bar(progress, len(prompts)) as advance:
            for index, response in self.stream(prompts, seeds=seeds, max_new_tokens=max_new_tokens, sampling=sampling):
                responses[index] = response
                advance()
        return [response for response in responses if response is not None]

    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        seeds: Sequence[int | None],
        max_new_tokens: int | Sequence[int],
        sampling: Sampling,
    ) -> Iterator[tuple[int, Response]]:
        """Generates one response per prompt; yields (index of the prompt, response) as soon as each is finished.

        Args:
            prompts: token ids.
            seeds: one seed per prompt; it makes the response reproducible whatever else is in the batch. None: no seed.
            max_new_tokens: one limit for all prompts, or one per prompt.
            sampling: sampling parameters.

        Raises:
            ValueError: a prompt and its limit exceed the context.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self.memory.require_all()
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
            yield request.index, _response(request, output)

    def score(self, sequences: Sequence[Sequence[int]], progress: Bar = False) -> list[list[float]]:
        """Returns the log-probabilities (nats) of every token but the first of each sequence, under the raw model.

        A sequence must be at least one token shorter than the context, because vLLM always generates a token.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self.memory.require_all()
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

    def option_logprobs(
        self, prompts: Sequence[Sequence[int]], choices: Sequence[Sequence[int]], progress: Bar = False
    ) -> list[list[float]]:
        """Returns, for each prompt, the log-probabilities (nats) of its `choices` as next token, under the raw model.

        Submits one request per prompt, so that shared prefixes are computed once: requesting log-probabilities of the
        prompt's own tokens, as `score` does, would prevent vLLM from using its prefix cache.
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
                (by_token,) = output.outputs[0].logprobs
                weights[request.index] = [by_token[token].logprob for token in choices[request.index]]
                advance()
        return weights

    def forget_prefixes(self) -> None:
        """Clears the prefix cache, so that the next prompts are computed from their beginning, as in a new engine."""
        self._llm.reset_prefix_cache()

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Replaces the model's weights by (name, tensor) pairs with Hugging Face names; see `end_weight_load`."""
        self.begin_weight_load()
        self.load_weight_block(weights)
        self.end_weight_load()

    def begin_weight_load(self) -> None:
        """Prepares the model for new weights, which `load_weight_block` loads in any number of parts."""
        self._llm.collective_rpc(reloading.begin)

    def load_weight_block(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Loads a part of the weights, full tensors with Hugging Face names. No weight may be loaded twice.

        Several threads may call this, as those of an actor with concurrent calls do; vLLM loads for one at a time.
        """
        with self._loading:
            self._llm.collective_rpc(reloading.load, args=(list(weights),))

    def end_weight_load(self) -> None:
        """Ends the update that `begin_weight_load` started: sets `bits`, and discards what the old weights computed.

        See `Requests` for what happens to running requests.

        Raises:
            RuntimeError: a layer did not get all its weights.
        """
        self._weights_changed(self._llm.collective_rpc(reloading.end))

    def abandon_weight_load(self) -> None:
        """Ends an update that failed half way, so that another can begin; until then, old and new weights are mixed."""
        self._llm.collective_rpc(reloading.end)
        self._requests.weights_changed()

    def start_weight_update(self) -> None:
        """Prepares the model to receive new weights through vLLM's own weight transfer."""
        self.control("start_weight_update")
        self._llm.collective_rpc(held_bits.start_counting)

    def finish_weight_update(self) -> None:
        """Ends the update that `start_weight_update` started; see `end_weight_load`."""
        self._llm.collective_rpc(held_bits.note_missing)
        self.control("finish_weight_update")
        self._weights_changed(self._llm.collective_rpc(held_bits.finish_counting))

    @property
    def weights(self) -> int:
        """Number of weight changes since the start."""
        return self._requests.weights

    def _weights_changed(self, held: list[held_bits.Held]) -> None:
        self._requests.weights_changed()
        self.bits = held_bits.whole(held)

    def control(self, method: str, *arguments: Any) -> Any:
        """Calls one of vLLM's own weight-transfer methods, e.g. `start_weight_update`."""
        return getattr(self._llm, method)(*arguments)

    def close(self) -> None:
        """Shuts the engine down and frees its memory."""
        from vllm.distributed import cleanup_dist_env_and_memory

        self._closing.set()
        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        cleanup_dist_env_and_memory()


def _prepare_on_cpus(worker: Any) -> None:
    """Installs the CPU sampler; runs in vLLM's worker."""
    if torch.cpu._is_amx_tile_supported():
        torch.cpu._init_amx()  # vLLM's attention uses AMX, but does not request it from the kernel in a new process
    from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler

    sampler = worker.model_runner.sampler.topk_topp_sampler
    if sampler.forward != TopKTopPSampler.forward_cpu.__get__(sampler):
        raise RuntimeError(
            "vLLM samples with another function than TopKTopPSampler.forward_cpu, which actors.inference.cpu_sampler replaces"
        )
    sampler.forward = draw


@contextmanager
def _bar(progress: Bar, total: int) -> Iterator[Callable[[], object]]:
    """Yields a function to call after each of `total` requests; it advances the progress bar, if there is one."""
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


def _response(request: Request, output: RequestOutput) -> Response:
    completion = output.outputs[0]
    logprobs = _flat(completion.logprobs) if completion.logprobs is not None else []
    finished = completion.finish_reason == "stop"
    return Response(list(completion.token_ids), logprobs, finished, request.weights, request.changes)


def _flat(logprobs: Any) -> list[float]:
    """Returns vLLM's flat log-probabilities as a list, one for each position that has one."""
    values: list[float] = logprobs.logprobs
    return values
