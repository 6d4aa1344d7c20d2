"""The stream of prompts: which prompts and sampling seeds each step uses, as a pure function of the settings."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, cycle, islice
from typing import Any

import numpy as np
import pyarrow as pa

from actors.rewards.sample import Sample
from actors.table import extended
from data.chat import Message, chat_ends, chat_format, encode_prompt, without_end
from data.tables import PROMPTS, DataError, column_values, read_table
from data.tokenizer.stops import single_tokens
from storage.paths import table_path
from trainers.config.rejection import RejectionConfig
from trainers.config.rlhf import PPOConfig


class PromptStream:
    """An endless stream of prompts, shuffled in every epoch. The same settings always give a step the same prompts."""

    def __init__(self, config: PPOConfig | RejectionConfig, tokenizer: Any) -> None:
        """Reads and encodes the prompts.

        Raises:
            DataError: a prompt is longer than `prompts.max_tokens` or cannot be encoded; the message names its index.
            ConfigError: an entry of `rollout.stop` is not a single token.
        """
        paths = [table_path(path) for path in config.prompts.train]
        single_tokens(tokenizer, config.rollout.stop, "rollout.stop")  # fails here rather than in the engines
        self._rows = read_table(paths, PROMPTS, others=True).to_pylist()
        self.tokenizer = tokenizer
        self.end_ids = chat_ends(tokenizer)
        """Ids of the tokens that end a response."""
        self.messages: list[list[Message]] = [row.pop("prompt") for row in self._rows]
        """The chat messages of each prompt, by `prompt_id`."""
        self._prompts = [self._encode(index, messages) for index, messages in enumerate(self.messages)]
        for index, prompt in enumerate(self._prompts):
            if len(prompt) > config.prompts.max_tokens:
                raise DataError(
                    f"{', '.join(map(str, paths))}: prompt {index} has {len(prompt)} tokens, more than "
                    f"prompts.max_tokens {config.prompts.max_tokens}: shorten or remove it, or raise "
                    "prompts.max_tokens"
                )
        self._per_step, self._samples, self._seed = config.prompts_per_step, config.samples_per_prompt, config.seed

    def __len__(self) -> int:
        return len(self._prompts)

    def require_trainable(self) -> None:
        """Raises DataError if the chat format does not support training on the responses to some prompt."""
        for index, messages in enumerate(self.messages):
            try:
                chat_format(self.tokenizer).response([*messages, {"role": "assistant", "content": "OK"}])
            except DataError as error:
                raise DataError(
                    f"prompts.train: prompt {index}: its responses cannot be trained on: {error}"
                ) from error

    def _encode(self, index: int, messages: list[Message]) -> list[int]:
        try:
            return encode_prompt(self.tokenizer, messages)
        except DataError as error:
            raise DataError(f"prompts.train: prompt {index}: {error}") from error

    def batch(self, step: int) -> pa.Table:
        """Returns the rows of step `step`; see `rows`."""
        return self.rows(step * self._per_step, self._per_step)

    def rows(self, first: int, count: int) -> pa.Table:
        """Returns `count` prompts from position `first` of the stream, each in `samples_per_prompt` consecutive rows.

        Columns: `prompt`, the token ids; `prompt_id`, the prompt's index in the tables; `group`, its position in the
        stream; `sample`, the number of the sample for this prompt; `seed`, the sampling seed.
        """
        chosen = list(islice(shuffled(len(self._prompts), self._seed, first), count))
        places = [(place, sample) for place in range(count) for sample in range(self._samples)]
        return extended(
            pa.table({}),
            {
                "prompt_id": pa.array([chosen[place] for place, _ in places], pa.int32()),
                "group": pa.array([first + place for place, _ in places], pa.int64()),
                "sample": pa.array([sample for _, sample in places], pa.int32()),
                "seed": pa.array([self._seed_of(first + place, sample) for place, sample in places], pa.int64()),
                "prompt": pa.array([self._prompts[chosen[place]] for place, _ in places], pa.list_(pa.int32())),
            },
            "prompts",
        )

    def samples(self, table: pa.Table) -> list[Sample]:
        """Returns the rows of `table`, which must have responses, with prompts and responses as text."""
        responses = [without_end(ids, self.end_ids) for ids in column_values(table, "response")]
        responses = self.tokenizer.batch_decode(responses, skip_special_tokens=True)
        columns = (table.column(name).to_pylist() for name in ("prompt_id", "sample", "finished"))
        return [
            Sample(
                prompt=self.messages[prompt],
                response=response,
                finished=finished,
                prompt_id=prompt,
                sample=sample,
                row=self._rows[prompt],
            )
            for response, prompt, sample, finished in zip(responses, *columns, strict=True)
        ]

    def probe(self, count: int, longest: int = 0) -> list[list[int]]:
        """Returns the token sequences on which engine and policy are compared.

        These are the prompts of at least 2 tokens among the first `count` prompts. If `longest` is not 0, a sequence of
        `longest` tokens of concatenated prompts is added at the end.
        """
        few = [prompt for prompt in self._prompts[:count] if len(prompt) > 1]
        return [*few, list(islice(chain.from_iterable(cycle(self._prompts)), longest))] if longest else few

    def _seed_of(self, position: int, sample: int) -> int:
        """Returns the seed of a sample. It depends on the position, so a repeated prompt gets a different seed."""
        return int(np.random.SeedSequence([self._seed, position, sample]).generate_state(1)[0] >> 1)


def shuffled(count: int, seed: int, first: int = 0) -> Iterator[int]:
    """Yields an endless sequence from position `first` on; every epoch contains each of 0 … `count` - 1 once."""
    epoch, offset = divmod(first, count)
    while True:
        order = np.random.default_rng([seed, epoch]).permutation(count)
        yield from order[offset:].tolist()
        epoch, offset = epoch + 1, 0
