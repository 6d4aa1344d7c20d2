"""What a task is given: the model under evaluation, the engine that runs it, and the models it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from actors.model_folder.folders import ModelFolder
from actors.precision import Dtype
from configs.base import Section
from data.chat import encode_prompt
from evals.models.engine import Answer, Engine
from evals.models.reward_model import RewardModel
from evals.models.sizing import Sizing

Row = dict[str, Any]
"""One row of a task's table, by column."""

ANSWER_TOKENS = 64
"""Longest answer where none is given: enough for the sample clinic's."""

Method = Literal["likelihood", "generation"]

Metrics = dict[str, Any]
"""A task's result, JSON: floats and counts by name, `n` among them."""


class Settings(Section):
    """What decides the numbers besides the models and the data; saved with the results."""

    seed: int
    """Chooses the rows where a table has more than the limit, and samples answers."""
    limits: dict[str, int]
    """Rows of each task's table that are used at most."""
    entity_tokens: int = 256
    """Longest list of the entities of a sentence of a file, in tokens."""
    ner_tokens: int = 64
    """Longest NER answer on the sample clinic, in tokens."""
    open_tokens: int = ANSWER_TOKENS
    """Longest answer to an open question, in tokens."""
    sample_tokens: int = ANSWER_TOKENS
    """Longest sampled answer, in tokens."""
    samples_per_prompt: int = 2
    """Sampled answers to each prompt, for reward and kl."""
    methods: tuple[Method, ...] = ("likelihood", "generation")
    """How lettered options are chosen."""
    shots: tuple[int, ...] = (0, 5)
    """Examples before a choice question; each number is an evaluation of its own."""
    rotate: bool = True
    """Whether options are asked for in every rotation, by log-likelihood."""
    every_turn: bool = True
    """Whether conversations are scored at every answer, not only at the last."""
    choice_tokens: int = 16
    """Longest written answer to a choice question, in tokens."""
    max_model_len: int | None = None
    """Context of the engine in tokens; None: the model's, at most 4,096."""
    dtype: Dtype | None = "auto"
    """Precision of the engine and the reward model; None: an endpoint's, which is not known here."""

    @property
    def sizing(self) -> Sizing:
        """What is asked of the engine."""
        return Sizing(self.max_model_len, self.dtype or "auto")


@dataclass(frozen=True)
class Sample:
    """A prompt and an answer sampled from the model at temperature 1."""

    prompt: list[int]
    answer: Answer

    @property
    def ids(self) -> list[int]:
        """Both together."""
        return self.prompt + self.answer.ids


@dataclass
class Subject:
    """A model under evaluation."""

    folder: ModelFolder
    engine: Engine
    settings: Settings
    reward: RewardModel | None = None
    reference: ModelFolder | None = None
    rival: ModelFolder | None = None
    _sampled_rows: list[Row] = field(default_factory=list)
    _samples: list[Sample] = field(default_factory=list)

    def prepare(self) -> None:
        """Load the model into the engine.

        Raises:
            ConfigError: the model cannot be loaded.
        """
        self.engine.load(self.folder)

    def samples(self, rows: Sequence[Row]) -> list[Sample]:
        """Answers sampled to the prompts of `rows`, row by row; made once and shared by the tasks that need them."""
        if self._sampled_rows != list(rows):
            encoded = [encode_prompt(self.folder.tokenizer, row["prompt"]) for row in rows]
            prompts = [prompt for prompt in encoded for _ in range(self.settings.samples_per_prompt)]
            answers = self.engine.generate(
                prompts, self.settings.sample_tokens, temperature=1.0, seed=self.settings.seed, label="sampling answers"
            )
            self._samples = [Sample(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
            self._sampled_rows = list(rows)
        return self._samples
