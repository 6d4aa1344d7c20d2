"""The rollout: vLLM engines that answer prompts with the newest weights of the policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from actors.config import InFlight, RolloutConfig
from actors.inference.engine import Answer, Engine, Sampling
from actors.modeling.rows import as_list_column
from actors.roles.worker import Worker
from data.tokenizer.stops import single_tokens


class Rollout(Worker):
    """One engine. Makes the columns `response`, `rollout_logprobs` and `finished` of the rows it is given.

    Where weights change under running requests it also makes `versions`: which weights sampled each token.
    """

    version: int

    def setup(
        self,
        config: RolloutConfig,
        model: str,
        seed: int,
        weight_transfer: str | None,
        end_ids: tuple[int, ...],
        in_flight: InFlight = "none",
    ) -> None:
        """Starts the engine on `model`'s weights; they count as version -1 until a version is published.

        `end_ids` are the tokens that end a response, beside those of `config.stop`.
        """
        self.config = config
        self.engine = Engine(model, config.engine, seed, weight_transfer, in_flight)
        stop = single_tokens(self.engine.tokenizer, config.stop, "rollout.stop")
        self._sampling = Sampling(config.temperature, config.top_p, config.top_k, config.min_p, (*end_ids, *stop))
        self._in_flight, self._updating = in_flight != "none", False
        self._versions: dict[int, int] = {}  # by how often the engine's weights had changed
        self._hold(-1)

    def generate(self, table: pa.Table, rows: list[int], version: int) -> pa.Table:
        """Answers the prompts of `rows`, each with its own `seed`, with weights `version` and no other.

        Raises RuntimeError when this engine holds another version.
        """
        ((_, answered),) = self.stream(table, [rows], version)
        return answered

    def stream(self, table: pa.Table, parts: list[list[int]], version: int) -> Iterator[tuple[int, pa.Table]]:
        """Answers the prompts of all rows in `parts`, and gives each part with its number once its rows are finished.

        It starts with weights `version`: RuntimeError when this engine holds others. Where weights change under running
        requests newer ones may be there already, and newer ones may come.
        """
        self._require(version)
        rows = [row for part in parts for row in part]
        part_of = [number for number, part in enumerate(parts) for _ in part]
        first = np.cumsum([0, *map(len, parts)])
        missing = [len(part) for part in parts]
        mine = table.take(rows)
        answers: list[Answer | None] = [None] * len(rows)
        for index, answer in self.engine.stream(
            mine.column("prompt").to_pylist(),
            seeds=mine.column("seed").to_pylist(),
            max_new_tokens=self.config.max_new_tokens,
            sampling=self._sampling,
        ):
            answers[index] = answer
            number = part_of[index]
            missing[number] -= 1
            if not missing[number]:
                done = [answer for answer in answers[first[number] : first[number + 1]] if answer is not None]
                yield number, self._columns(done)

    def _columns(self, answers: list[Answer]) -> pa.Table:
        counts = [len(answer.tokens) for answer in answers]
        tokens = np.fromiter(chain.from_iterable(answer.tokens for answer in answers), np.int32)
        logprobs = np.fromiter(chain.from_iterable(answer.logprobs for answer in answers), np.float32)
        columns = {
            "response": as_list_column(tokens, counts, pa.int32()),
            "rollout_logprobs": as_list_column(logprobs, counts, pa.float32()),
            "finished": pa.array([answer.finished for answer in answers], pa.bool_()),
        }
        if self._in_flight:
            versions = np.concatenate([self._versions_of(answer) for answer in answers])
            columns["versions"] = as_list_column(versions, counts, pa.int32())
        return pa.table(columns)

    def _versions_of(self, answer: Answer) -> np.ndarray:
        """The version behind every token of an answer, (A,) int32."""
        spans = np.diff([0, *answer.changes, len(answer.tokens)])
        held = [self._versions[answer.weights + later] for later in range(len(spans))]
        return np.repeat(np.array(held, np.int32), spans)

    def begin_weights(self) -> None:
        """Stops the engine between two of its steps, ready to take the policy's weights. Ends a try that broke off."""
        if self._updating:
            self.engine.end_weights()
        else:
            self._stop_engine()
        self.engine.begin_weights()

    def take_weights(self, block: Mapping[str, Tensor]) -> None:
        """Takes some of the weights by name."""
        self.engine.take_weights(block.items())

    def end_weights(self, version: int) -> None:
        """Names what has come `version`; the engine goes on with it."""
        self.engine.end_weights()
        self.set_version(version)

    def set_version(self, version: int) -> None:
        """Names the weights that have just come; the engine then goes on."""
        self._hold(version)
        if self._updating:
            self._updating = False
            self.engine.turns.give()

    def _hold(self, version: int) -> None:
        self.version = version
        self._versions[self.engine.weights] = version

    def probe(self, sequences: list[list[int]]) -> tuple[int, list[list[float]]]:
        """The version held, and the log-probabilities of every token but the first of each sequence."""
        return self.version, self.engine.score(sequences)

    # The four calls of vLLM's weight-transfer handshake, by the names that its Ray client calls.
    def init_weight_transfer_engine(self, request: Any) -> None:
        """Joins the transfer group."""
        self.engine.control("init_weight_transfer_engine", request)

    def start_weight_update(self) -> None:
        """Stops the engine between two of its steps, ready to receive weights."""
        self._stop_engine()
        self.engine.control("start_weight_update")

    def update_weights(self, request: Any) -> None:
        """Receives some of the weights."""
        self.engine.control("update_weights", request)

    def finish_weight_update(self) -> None:
        """Ends the transfer and drops the prefix cache."""
        self.engine.control("finish_weight_update")
        self.engine.weights_changed()

    def _stop_engine(self) -> None:
        self.engine.turns.take()
        self._updating = True

    def _require(self, version: int) -> None:
        if self.version < version if self._in_flight else self.version != version:
            raise RuntimeError(
                f"the engine holds weights version {self.version}, but version {version} was asked for: "
                f"the last publish did not reach it"
            )
