"""The vLLM engine of this process: token ids in, token ids and log-probabilities out, for one model after another.

Starting an engine takes seconds, reloading its weights milliseconds, so `load` keeps the engine if the next model has
the same architecture.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actors.model_folder.folders import Architecture, ModelFolder
from configs.errors import ConfigError
from data.chat import without_end
from evals.models.device import prepare_process
from evals.models.sizing import Sizing, sized
from evals.result_cache import ResultCache

if TYPE_CHECKING:
    from actors.inference import engine


@dataclass(frozen=True)
class Response:
    """A generated response."""

    ids: list[int]
    """(A,) token ids, including the end-of-turn token if it was generated."""
    text: str
    """The decoded response, without the end-of-turn token and other special tokens."""
    finished: bool
    """Whether the end-of-turn token was generated; if not, the response was truncated at the length limit."""


class Engine:
    """A vLLM engine that holds one model at a time; there must be no other engine in the same process.

    Args:
        result_cache: stores every result, so that none is computed twice; None for no cache.
        sizing: the engine's size settings; by default those of `Sizing`.
    """

    def __init__(self, result_cache: ResultCache | None = None, sizing: Sizing | None = None) -> None:
        self._result_cache, self._sizing = result_cache, sizing or Sizing()
        self._digest = ""
        prepare_process()
        self._engine: engine.Engine | None = None
        self._architecture: Architecture | None = None
        self._folder: ModelFolder | None = None
        self._ends: tuple[int, ...] = ()  # token ids at which the running engine stops

    @property
    def folder(self) -> ModelFolder:
        """The loaded model.

        Raises:
            RuntimeError: `load` was not called.
        """
        if self._folder is None:
            raise RuntimeError("no model is loaded")
        return self._folder

    @property
    def context(self) -> int:
        """Longest sequence that the engine accepts with the loaded model, in tokens."""
        return self._sizing.context(self.folder)

    def load(self, folder: ModelFolder) -> None:
        """Loads the model in `folder`, into the running engine if the architecture is the same.

        Reloading weights in vLLM is known to be exact, including tied heads, for Llama architectures only. For other
        models, a new engine is started.

        Raises:
            ConfigError: vLLM cannot load the model, or it would not fit in memory.
        """
        if self._folder is not None and self._folder.path == folder.path:
            return
        architecture = folder.architecture()
        try:
            if self._engine is not None and architecture == self._architecture and self._may_reload(folder):
                # Equal architectures have the same tensor names, so every tensor of the old model is overwritten.
                self._engine.load_weights(folder.weights())
            else:
                self.close()
                self._engine, self._ends = _start(folder, self._sizing), folder.end_ids
        except ConfigError:
            self._folder = None
            raise
        except (ValueError, KeyError, OSError, RuntimeError) as error:
            self._folder = None
            raise ConfigError(f"{folder.path}: vLLM cannot load this model: {error}") from error
        self._architecture, self._folder = architecture, folder
        self._digest = folder.digest if self._result_cache else ""

    def _may_reload(self, folder: ModelFolder) -> bool:
        return folder.is_llama and folder.end_ids == self._ends

    def close(self) -> None:
        """Shuts down the engine and frees its memory. `load` starts a new one."""
        if self._engine is not None:
            self._engine.close()
        self._engine = self._architecture = self._folder = None

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        label: str = "generate",
    ) -> list[Response]:
        """Generates one response per prompt, in order.

        Args:
            prompts: token ids, each of length 1 to context - 2.
            max_tokens: longest response, in tokens; less if the context ends earlier, so that `score` accepts prompt +
                response.
            temperature: 0 is greedy. Otherwise, response i depends only on its prompt, `seed`, and i, not on the other
                prompts.
            seed: seed for sampling.
            label: text of the progress bar.

        Raises:
            ConfigError: a prompt leaves no room for a response in the context.
        """
        longest = self.context - 1
        self._check_lengths(prompts, longest - 1, label)
        seeds = [None if temperature == 0 else _request_seed(seed, index) for index in range(len(prompts))]
        limits = [min(max_tokens, longest - len(prompt)) for prompt in prompts]

        def ask(requests: Sequence[tuple[Sequence[int], int | None, int]]) -> list[tuple[list[int], bool]]:
            answers = self._running.generate(
                [prompt for prompt, _, _ in requests],
                seeds=[seed for _, seed, _ in requests],
                max_new_tokens=[limit for _, _, limit in requests],
                temperature=temperature,
                stop=self.folder.end_ids,
                logprobs=False,
                progress=_progress_bar(label),
            )
            return [(answer.tokens, answer.finished) for answer in answers]

        answers = self._through(["generate", temperature], list(zip(prompts, seeds, limits, strict=True)), ask)
        decode, ends = self.folder.tokenizer.decode, self.folder.end_ids
        return [
            Response(ids, decode(without_end(ids, ends), skip_special_tokens=True), finished)
            for ids, finished in answers
        ]

    def score(self, sequences: Sequence[Sequence[int]], label: str = "score") -> list[list[float]]:
        """Computes the log-probability of every token after the first, given the tokens before it.

        Args:
            sequences: token ids, each of length T from 1 to context - 1 (vLLM always generates one more token).
            label: text of the progress bar.

        Returns:
            For each sequence, T - 1 natural logarithms; item t - 1 belongs to token t.

        Raises:
            ConfigError: a sequence is empty or too long for the context.
        """
        self._check_lengths(sequences, self.context - 1, label)
        return self._through(["score"], sequences, lambda chunk: self._running.score(chunk, _progress_bar(label)))

    def option_logprobs(
        self, prompts: Sequence[Sequence[int]], choices: Sequence[Sequence[int]], label: str = "option_logprobs"
    ) -> list[list[float]]:
        """Computes the log-probability of each of a prompt's `choices` as the next token, with one request per prompt.

        Unlike in `score`, a common prefix of prompts, such as few-shot examples, is computed once.

        Args:
            prompts: token ids, each of length 1 to context - 1.
            choices: for each prompt, ids of candidate next tokens.
            label: text of the progress bar.

        Returns:
            For each prompt, one natural logarithm per choice.

        Raises:
            ConfigError: a prompt is empty or too long for the context.
        """
        self._check_lengths(prompts, self.context - 1, label)

        def ask(requests: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
            asked, tokens = zip(*requests, strict=True)
            return self._running.option_logprobs(asked, tokens, _progress_bar(label))

        return self._through(["option_logprobs"], list(zip(prompts, choices, strict=True)), ask)

    def _through(
        self, what: list[Any], requests: Sequence[Any], ask: Callable[[Sequence[Any]], list[Any]]
    ) -> list[Any]:
        """Returns the results of `ask`, through the result cache if there is one.

        The engine's prefix cache is cleared before each chunk, so that a chunk's results do not depend on earlier ones.
        """
        if not requests:
            return []

        def ask_afresh(chunk: Sequence[Any]) -> list[Any]:
            self._running.forget_prefixes()
            return ask(chunk)

        if self._result_cache is None:
            return ask_afresh(requests)
        return self._result_cache.through([self._digest, *what], requests, ask_afresh)

    @property
    def _running(self) -> engine.Engine:
        if self._engine is None:
            raise RuntimeError("no model is loaded")
        return self._engine

    def _check_lengths(self, prompts: Sequence[Sequence[int]], longest: int, label: str) -> None:
        for index, prompt in enumerate(prompts):
            if not 1 <= len(prompt) <= longest:
                raise ConfigError(
                    f"{label}: sample {index} has {len(prompt)} tokens; {self.folder.path} takes 1 to {longest} here "
                    f"(the engine's context is {self.context}, the model's {self.folder.context}): raise --max-model-len, "
                    "shorten the sample or leave it out"
                )


def _start(folder: ModelFolder, sizing: Sizing) -> engine.Engine:
    """Starts an engine.

    Raises:
        ConfigError: the model does not fit in memory; this is checked before vLLM is loaded.
    """
    from actors.inference import engine

    return engine.Engine(str(folder.path), sized(folder, sizing))


def _request_seed(seed: int, index: int) -> int:
    """Returns a distinct seed for each request, because equal prompts would get equal responses from a common seed."""
    return (seed * 1_000_003 + index) % 2**31


def _progress_bar(label: str) -> Callable[..., Any] | bool:
    """Returns the factory that vLLM calls for its progress bar; False (no bar) if stderr is not a terminal."""
    if not sys.stderr.isatty():
        return False
    from tqdm import tqdm  # type: ignore[import-untyped]

    shape = "{desc} {bar} {n_fmt}/{total_fmt} {elapsed}<{remaining}"
    return lambda **options: tqdm(**{**options, "desc": label, "leave": False, "bar_format": shape})
