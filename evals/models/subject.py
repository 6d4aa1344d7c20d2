"""The inputs of a task: the model under evaluation, its engine, and the models that it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from actors.model_folder.folders import ModelFolder
from actors.precision import Dtype
from configs.base import Section
from data.chat import encode_prompt
from evals.models.engine import Engine, Response
from evals.models.reward_model import RewardModel
from evals.models.sizing import Sizing

Row = dict[str, Any]
"""One row of a task's table, by column."""

RESPONSE_TOKENS = 64
"""Default length limit of a response, in tokens: sufficient for the sample clinic."""

Method = Literal["likelihood", "generation"]

Metrics = dict[str, Any]
"""A task's result, as JSON: floats and counts by name, including `n`."""


class Settings(Section):
    """The settings that the results depend on, besides the models and the data; saved with the results."""

    seed: int
    """Seed for the choice of rows if a table has more than the limit, and for sampled responses."""
    limits: dict[str, int]
    """Largest number of rows or items of each task."""
    entity_tokens: int = 256
    """Longest response to an NER question of the ccks benchmark, in tokens."""
    ner_tokens: int = 64
    """Longest response to an NER question of the sample clinic, in tokens."""
    open_tokens: int = RESPONSE_TOKENS
    """Longest response to an open question, in tokens."""
    sample_tokens: int = RESPONSE_TOKENS
    """Longest sampled response, in tokens."""
    samples_per_prompt: int = 2
    """Sampled responses per prompt, for reward and kl."""
    methods: tuple[Method, ...] = ("likelihood", "generation")
    """Methods by which the model chooses lettered options."""
    shots: tuple[int, ...] = (0, 5)
    """Numbers of few-shot examples before a choice question; each number is a separate evaluation."""
    rotate: bool = True
    """Whether log-likelihood scores the options in every rotation."""
    every_turn: bool = True
    """Whether conversations are scored at every response, not only at the last."""
    choice_tokens: int = 16
    """Longest generated response to a choice question, in tokens."""
    max_model_len: int | None = None
    """Context length of the engine, in tokens; None: the model's, at most 4,096."""
    dtype: Dtype | None = "auto"
    """Precision of the engine and the reward model; None for an endpoint, whose precision is unknown."""

    tensor_parallel_size: int = 1
    """Number of the engine's processes."""

    @property
    def sizing(self) -> Sizing:
        """The engine's size settings."""
        return Sizing(self.max_model_len, self.dtype or "auto", tensor_parallel_size=self.tensor_parallel_size)


@dataclass(frozen=True)
class Sample:
    """A prompt and a response sampled from the model at temperature 1."""

    prompt: list[int]
    answer: Response

    @property
    def ids(self) -> list[int]:
        """Token ids of prompt and response, concatenated."""
        return self.prompt + self.answer.ids


@dataclass
class Subject:
    """A language model under evaluation, with its engine and the models that it is compared with."""

    folder: ModelFolder
    engine: Engine
    settings: Settings
    reward: RewardModel | None = None
    reference: ModelFolder | None = None
    rival: ModelFolder | None = None
    _sampled_rows: list[Row] = field(default_factory=list)
    _samples: list[Sample] = field(default_factory=list)

    def prepare(self) -> None:
        """Loads the model into the engine.

        Raises:
            ConfigError: the model cannot be loaded.
        """
        self.engine.load(self.folder)

    def samples(self, rows: Sequence[Row]) -> list[Sample]:
        """Returns sampled responses to the prompts of `rows`, `samples_per_prompt` per row, in order.

        The responses are generated once and shared by the tasks that need them.
        """
        if self._sampled_rows != list(rows):
            encoded = [encode_prompt(self.folder.tokenizer, row["prompt"]) for row in rows]
            prompts = [prompt for prompt in encoded for _ in range(self.settings.samples_per_prompt)]
            answers = self.engine.generate(
                prompts,
                self.settings.sample_tokens,
                temperature=1.0,
                seed=self.settings.seed,
                label="sampling responses",
            )
            self._samples = [Sample(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
            self._sampled_rows = list(rows)
        return self._samples
