"""The rollout: vLLM engines that generate responses with the policy's published weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from actors.config import InFlight, RolloutConfig, SleepLevel
from actors.inference.engine import Engine, Response, Sampling
from actors.modeling.rows import as_list_column
from actors.roles.worker import RunContext, Worker, needs
from data.tables import column_values
from data.tokenizer.stops import single_tokens


class Rollout(Worker):
    """One engine. Produces the columns `response`, `rollout_logprobs`, and `finished` for the rows it receives.

    With in-flight weight updates it also produces `versions`: the weights version that sampled each token.
    """

    version: int
    runs_vllm = True

    @classmethod
    def setup_arguments(cls, role: str, context: RunContext) -> tuple[Any, ...]:
        """See `Worker`."""
        settings = context.roles[role]
        transfer, end_ids, sleep_level = context.native_transfer, context.end_ids, context.sleep_level
        return settings, context.model, context.seed, transfer, end_ids, context.in_flight, sleep_level

    @classmethod
    def calls_at_once(cls, settings: RolloutConfig) -> int:
        """See `Worker`."""
        return settings.calls_at_once

    def setup(
        self,
        config: RolloutConfig,
        model: str,
        seed: int,
        weight_transfer: str | None,
        end_ids: tuple[int, ...],
        in_flight: InFlight = "none",
        sleep_level: SleepLevel = 0,
    ) -> None:
        """Starts the engine with the weights of `model`, which count as version -1 until a version is published.

        Args:
            config: settings of generation and of the engine.
            model: a Hugging Face folder or Hub id.
            seed: the engine's seed; every row also has its own seed.
            weight_transfer: vLLM's weight-transfer backend, if weights are sent through one.
            end_ids: tokens that end a response, in addition to those of `config.stop`.
            in_flight: what happens to running requests when weights change.
            sleep_level: see `Engine`.
        """
        self.config = config
        self.engine = Engine(model, config.engine, seed, weight_transfer, in_flight, sleep_level)
        self.memory = self.engine.memory
        stop = single_tokens(self.engine.tokenizer, config.stop, "rollout.stop")
        self._sampling = Sampling(config.temperature, config.top_p, config.top_k, config.min_p, (*end_ids, *stop))
        self._in_flight, self._updating = in_flight != "none", False
        self._versions: dict[int, int] = {}  # the engine's count of weight changes -> version
        self._hold(-1)

    def generate(self, table: pa.Table, rows: list[int], version: int) -> pa.Table:
        """Generates responses to the prompts of `rows`, each with its own `seed`, with weights `version`.

        See `stream`, which also documents the RuntimeError for a wrong version.
        """
        ((_, answered),) = self.stream(table, [rows], version)
        return answered

    def stream(self, table: pa.Table, parts: list[list[int]], version: int) -> Iterator[tuple[int, pa.Table]]:
        """Generates responses for the rows of all `parts`; yields (part number, columns) when a part is finished.

        Generation starts with weights `version`. With in-flight weight updates the engine may already hold newer
        weights, and may receive newer ones during generation.

        Raises RuntimeError if the engine holds another version; with in-flight weight updates, only if it is older.
        """
        self._require(version)
        rows = [row for part in parts for row in part]
        part_of = [number for number, part in enumerate(parts) for _ in part]
        first = np.cumsum([0, *map(len, parts)])
        missing = [len(part) for part in parts]
        mine = table.take(rows)
        responses: list[Response | None] = [None] * len(rows)
        for index, response in self.engine.stream(
            column_values(mine, "prompt"),
            seeds=column_values(mine, "seed"),
            max_new_tokens=self.config.max_new_tokens,
            sampling=self._sampling,
        ):
            responses[index] = response
            number = part_of[index]
            missing[number] -= 1
            if not missing[number]:
                done = [response for response in responses[first[number] : first[number + 1]] if response is not None]
                yield number, self._columns(done)

    def _columns(self, responses: list[Response]) -> pa.Table:
        counts = [len(response.tokens) for response in responses]
        tokens = np.fromiter(chain.from_iterable(response.tokens for response in responses), np.int32)
        logprobs = np.fromiter(chain.from_iterable(response.logprobs for response in responses), np.float32)
        columns = {
            "response": as_list_column(tokens, counts, pa.int32()),
            "rollout_logprobs": as_list_column(logprobs, counts, pa.float32()),
            "finished": pa.array([response.finished for response in responses], pa.bool_()),
        }
        if self._in_flight:
            versions = np.concatenate([self._versions_of(response) for response in responses])
            columns["versions"] = as_list_column(versions, counts, pa.int32())
        return pa.table(columns)

    def _versions_of(self, response: Response) -> np.ndarray:
        """Returns the weights version that sampled each token of a response, (tokens,) int32."""
        spans = np.diff([0, *response.changes, len(response.tokens)])
        held = [self._versions[response.weights + later] for later in range(len(spans))]
        return np.repeat(np.array(held, np.int32), spans)

    @needs("weights")
    def begin_weight_load(self) -> None:
        """Pauses the engine between two steps and prepares it for new weights; ends an earlier update that failed."""
        if self._updating:
            self.engine.abandon_weight_load()
        else:
            self._stop_engine()
        self.engine.begin_weight_load()

    @needs("weights")
    def load_weight_block(self, block: Mapping[str, Tensor]) -> None:
        """Loads some of the weights, by name."""
        self.engine.load_weight_block(block.items())

    @needs("weights")
    def end_weight_load(self, version: int) -> None:
        """Ends the update, labels the new weights `version`, and resumes the engine."""
        self.engine.end_weight_load()
        self.set_version(version)

    @needs("nothing")
    def set_version(self, version: int) -> None:
        """Labels the engine's current weights `version`, and resumes the engine if it was paused for an update."""
        self._hold(version)
        if self._updating:
            self._updating = False
            self.engine.lock.release()

    def _hold(self, version: int) -> None:
        self.version = version
        self._versions[self.engine.weights] = version

    @needs("nothing")
    def held_bits(self) -> int | None:
        """Returns the sum of the bits of all weights that the last update brought; None before the first."""
        return self.engine.bits

    def probe(self, sequences: list[list[int]]) -> tuple[int, list[list[float]]]:
        """Returns the held version, and the log-probabilities (nats) of every token but the first of each sequence."""
        return self.version, self.engine.score(sequences)

    @needs("nothing")
    def processes(self) -> int:
        """Returns the number of processes of the engine."""
        return self.config.engine.tensor_parallel_size

    # The methods of vLLM's weight-transfer handshake, under the names that its Ray client calls.
    def init_weight_transfer_engine(self, request: Any) -> None:
        """Joins the transfer group."""
        self.engine.control("init_weight_transfer_engine", request)

    def start_weight_update(self) -> None:
        """Pauses the engine between two steps, and prepares it to receive weights."""
        self._stop_engine()
        self.engine.start_weight_update()

    def update_weights(self, request: Any) -> None:
        """Receives some of the weights."""
        self.engine.control("update_weights", request)

    def finish_weight_update(self) -> None:
        """Ends the transfer and invalidates cached prefixes of the old weights."""
        self.engine.finish_weight_update()

    def _stop_engine(self) -> None:
        self.engine.lock.acquire()
        self._updating = True

    def _require(self, version: int) -> None:
        if self.version < version if self._in_flight else self.version != version:
            raise RuntimeError(
                f"the engine holds weights version {self.version}, but version {version} was asked for: "
                f"the last publish did not reach it"
            )
