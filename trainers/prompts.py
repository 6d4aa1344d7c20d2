"""The prompts of a PPO run: which ones each step answers, and with which seeds, as a pure function of the step."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from actors.judges.sample import Sample

from cluster.paths import require_file
from data.chat import encode_prompt
from data.tables import PROMPTS, DataError, read_table
from trainers.config import PPOConfig


class PromptStream:
    """Epoch after epoch of shuffled prompts. The same settings give the same prompts at the same step, always."""

    def __init__(self, config: PPOConfig, tokenizer: Any) -> None:
        """Reads and encodes the prompts. Raises DataError for a prompt longer than `prompts.max_tokens`, by row."""
        hint = "give tables with a `prompt` column, or make the sample clinic's with python -m data.clinic"
        paths = [require_file(path, "prompts", hint) for path in config.prompts.train]
        self._rows = read_table(paths, PROMPTS, others=True).to_pylist()
        self.tokenizer = tokenizer
        self._messages = [row.pop("prompt") for row in self._rows]
        self._prompts = [encode_prompt(tokenizer, messages) for messages in self._messages]
        for index, prompt in enumerate(self._prompts):
            if len(prompt) > config.prompts.max_tokens:
                raise DataError(
                    f"{', '.join(map(str, paths))}: prompt {index} has {len(prompt)} tokens, prompts.max_tokens is "
                    f"{config.prompts.max_tokens}: shorten or remove it, or raise the limit"
                )
        self._per_step, self._samples, self._seed = config.prompts_per_step, config.samples_per_prompt, config.seed
        self._batches = 1 + config.algorithm.resample

    def batch(self, step: int, attempt: int = 0) -> pa.Table:
        """The rows that step `step` answers: `prompt`, its index `prompt_id`, `sample` and the sampling `seed`.

        Rows of the same prompt have the same `group`. A step that resamples has further batches, by `attempt`.
        """
        first = (step * self._batches + attempt) * self._per_step
        chosen = list(islice(self._order(first), self._per_step))
        places = [(place, sample) for place in range(self._per_step) for sample in range(self._samples)]
        return pa.table(
            {
                "prompt_id": pa.array([chosen[place] for place, _ in places], pa.int32()),
                "group": pa.array([first + place for place, _ in places], pa.int64()),
                "sample": pa.array([sample for _, sample in places], pa.int32()),
                "seed": pa.array([self._seed_of(first + place, sample) for place, sample in places], pa.int64()),
                "prompt": pa.array([self._prompts[chosen[place]] for place, _ in places], pa.list_(pa.int32())),
            }
        )

    def samples(self, table: pa.Table) -> list[Sample]:
        """The rows of `table`, answered, in words."""
        answers = self.tokenizer.batch_decode(table.column("response").to_pylist(), skip_special_tokens=True)
        columns = (table.column(name).to_pylist() for name in ("prompt_id", "sample", "finished"))
        return [
            Sample(
                prompt=self._messages[prompt],
                response=answer,
                finished=finished,
                prompt_id=prompt,
                sample=sample,
                row=self._rows[prompt],
            )
            for answer, prompt, sample, finished in zip(answers, *columns, strict=True)
        ]

    def probe(self, count: int) -> list[list[int]]:
        """A few prompts to compare engine and policy on."""
        return [prompt for prompt in self._prompts[:count] if len(prompt) > 1]

    def _order(self, first: int) -> Iterator[int]:
        """Prompt indices from position `first` of the endless shuffled sequence."""
        epoch, offset = divmod(first, len(self._prompts))
        while True:
            order = np.random.default_rng([self._seed, epoch]).permutation(len(self._prompts))
            yield from order[offset:].tolist()
            epoch, offset = epoch + 1, 0

    def _seed_of(self, position: int, sample: int) -> int:
        """Of the prompt at a position of the endless sequence: a prompt that comes again gets another seed."""
        return int(np.random.SeedSequence([self._seed, position, sample]).generate_state(1)[0] >> 1)
