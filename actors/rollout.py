"""The rollout: vLLM engines that answer prompts with the newest weights of the policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from actors.config import RolloutConfig
from actors.engine import Engine
from actors.worker import Worker


class Rollout(Worker):
    """One engine. Makes the columns `response`, `rollout_logprobs` and `finished` of the rows it is given."""

    version: int

    def setup(self, config: RolloutConfig, model: str, seed: int, weight_transfer: str | None) -> None:
        """Starts the engine on `model`'s weights; they count as version -1 until a version is published."""
        self.config = config
        self.engine = Engine(model, config.engine, seed, weight_transfer)
        self.version = -1

    def generate(self, table: pa.Table, rows: list[int], version: int) -> pa.Table:
        """Answers the prompts of `rows`, each with its own `seed`, with weights `version` and no other.

        Raises RuntimeError when this engine holds another version.
        """
        self._require(version)
        mine = table.take(rows)
        answers = self.engine.generate(
            mine.column("prompt").to_pylist(),
            seeds=mine.column("seed").to_pylist(),
            max_new_tokens=self.config.max_new_tokens,
            temperature=self.config.temperature,
            top_p=self.config.top_p,
        )
        return pa.table(
            {
                "response": pa.array([answer.tokens for answer in answers], pa.list_(pa.int32())),
                "rollout_logprobs": pa.array([answer.logprobs for answer in answers], pa.list_(pa.float32())),
                "finished": pa.array([answer.finished for answer in answers], pa.bool_()),
            }
        )

    def load_weights(self, version: int, state: Mapping[str, Tensor]) -> None:
        """Takes full weights by name as version `version`."""
        # Arrays out of the object store are read-only views; vLLM copies from them.
        self.engine.load_weights((name, torch.as_tensor(tensor)) for name, tensor in state.items())
        self.version = version

    def set_version(self, version: int) -> None:
        """Names the weights that a native transfer has just brought."""
        self.version = version

    def probe(self, sequences: list[list[int]]) -> tuple[int, list[list[float]]]:
        """The version held, and the log-probabilities of every token but the first of each sequence."""
        return self.version, self.engine.score(sequences)

    # The four calls of vLLM's weight-transfer handshake, by the names that its Ray client calls.
    def init_weight_transfer_engine(self, request: Any) -> None:
        self.engine.control("init_weight_transfer_engine", request)

    def start_weight_update(self) -> None:
        self.engine.control("start_weight_update")

    def update_weights(self, request: Any) -> None:
        self.engine.control("update_weights", request)

    def finish_weight_update(self) -> None:
        self.engine.control("finish_weight_update")
        self.engine.drop_prefixes()

    def _require(self, version: int) -> None:
        if self.version != version:
            raise RuntimeError(
                f"the engine holds weights version {self.version}, but version {version} was asked for: "
                f"the last publish did not reach it"
            )
