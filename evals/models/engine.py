"""One vLLM engine in this process: token ids in, token ids and log-probabilities out, for one model after another.

Starting an engine costs seconds, reloading its weights milliseconds: `load` keeps the engine as long as the next model
has the same architecture.
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
class Answer:
    """What a model wrote after a prompt."""

    ids: list[int]
    """(A,) tokens, the end mark included if the model wrote it."""
    text: str
    """The tokens without the end mark and other special tokens, as text."""
    finished: bool
    """Whether the model wrote the end mark; if not, it was cut off at the allowed length."""


class Engine:
    """vLLM with one model at a time. Not for use beside another engine in the same process.

    With a result cache every answer is kept, and not asked for again.
    """

    def __init__(self, result_cache: ResultCache | None = None, sizing: Sizing | None = None) -> None:
        self._result_cache, self._sizing = result_cache, sizing or Sizing()
        self._digest = ""
        prepare_process()
        self._engine: engine.Engine | None = None
        self._architecture: Architecture | None = None
        self._folder: ModelFolder | None = None
        self._ends: tuple[int, ...] = ()  # at which the running engine stops by itself

    @property
    def folder(self) -> ModelFolder:
        """The model that answers now.

        Raises:
            RuntimeError: `load` was not called.
        """
        if self._folder is None:
            raise RuntimeError("no model is loaded")
        return self._folder

    @property
    def context(self) -> int:
        """Longest sequence that the loaded model takes here, in tokens."""
        return self._sizing.context(self.folder)

    def load(self, folder: ModelFolder) -> None:
        """Make `folder` the model that answers, in the running engine if its architecture is the same.

        Only for Llama's is vLLM's reloading known to be exact, tied heads included; others get a new engine.

        Raises:
            ConfigError: vLLM cannot load the folder, or it would not fit in memory.
        """
        if self._folder is not None and self._folder.path == folder.path:
            return
        architecture = folder.architecture()
        try:
            if self._engine is not None and architecture == self._architecture and self._may_reload(folder):
                # Equal architectures name the same tensors, so none of the old model's can be left over.
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
        """End the engine and free its memory; `load` starts another."""
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
    ) -> list[Answer]:
        """One answer to every prompt, in order.

        Args:
            prompts: token ids, each of length 1 to context - 2.
            max_tokens: longest answer; shorter where the context ends before, so that `score` takes prompt + answer.
            temperature: 0 is greedy. Otherwise answer i depends on its prompt, `seed` and i alone, not on the others.
            seed: of the sampling.
            label: what the progress bar says.

        Raises:
            ConfigError: a prompt that leaves no room in the context.
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
            Answer(ids, decode(without_end(ids, ends), skip_special_tokens=True), finished) for ids, finished in answers
        ]

    def score(self, sequences: Sequence[Sequence[int]], label: str = "score") -> list[list[float]]:
        """Log-probability of every token after the first, given those before it.

        Args:
            sequences: token ids, each of length T from 1 to context - 1 (vLLM always adds a token).
            label: what the progress bar says.

        Returns:
            For each sequence T - 1 natural logarithms; item t - 1 belongs to token t.

        Raises:
            ConfigError: a sequence longer than the context allows.
        """
        self._check_lengths(sequences, self.context - 1, label)
        return self._through(["score"], sequences, lambda chunk: self._running.score(chunk, _progress_bar(label)))

    def weigh(
        self, prompts: Sequence[Sequence[int]], choices: Sequence[Sequence[int]], label: str = "weigh"
    ) -> list[list[float]]:
        """Log-probability of each of a prompt's `choices`, single tokens, as the next token. One request a prompt.

        Unlike in `score`, what prompts share, such as examples before a question, is computed once.

        Args:
            prompts: token ids, each of length 1 to context - 1.
            choices: for each prompt the ids of the tokens that may follow.
            label: what the progress bar says.

        Raises:
            ConfigError: a prompt longer than the context allows.
        """
        self._check_lengths(prompts, self.context - 1, label)

        def ask(requests: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
            asked, tokens = zip(*requests, strict=True)
            return self._running.weigh(asked, tokens, _progress_bar(label))

        return self._through(["weigh"], list(zip(prompts, choices, strict=True)), ask)

    def _through(
        self, what: list[Any], requests: Sequence[Any], ask: Callable[[Sequence[Any]], list[Any]]
    ) -> list[Any]:
        """What `ask` gives for the requests, through the result cache if there is one; every chunk begins without prefixes."""
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
    """An engine. Raises ConfigError, before vLLM is loaded, for a model that does not fit."""
    from actors.inference import engine

    return engine.Engine(str(folder.path), sized(folder, sizing))


def _request_seed(seed: int, index: int) -> int:
    """A seed of its own for each request: with one for all, equal prompts would get equal answers."""
    return (seed * 1_000_003 + index) % 2**31


def _progress_bar(label: str) -> Callable[..., Any] | bool:
    """What vLLM calls to make its bar: ours says what is being done. No bar where nobody looks at it."""
    if not sys.stderr.isatty():
        return False
    from tqdm import tqdm  # type: ignore[import-untyped]

    shape = "{desc} {bar} {n_fmt}/{total_fmt} {elapsed}<{remaining}"
    return lambda **options: tqdm(**{**options, "desc": label, "leave": False, "bar_format": shape})
