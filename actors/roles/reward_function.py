"""The role `judge`: rewards from Python functions and HTTP endpoints instead of a reward model."""

from __future__ import annotations

import pyarrow as pa

from actors.config import JudgeConfig
from actors.rewards.function import FunctionJudge
from actors.rewards.http import HttpJudge
from actors.rewards.sample import Judge, Sample
from actors.roles.worker import Worker


def sources_of(config: JudgeConfig) -> list[Judge]:
    """Creates all reward sources of `config`: imports the functions and sets up the endpoints.

    Raises:
        ConfigError: a function or endpoint is not valid.
    """
    functions = [FunctionJudge(name, source) for name, source in config.functions.items()]
    return [*functions, *(HttpJudge(name, source) for name, source in config.endpoints.items())]


class JudgeWorker(Worker):
    """One process with all reward sources, so that a function that hangs or crashes affects no other process."""

    def setup(self, config: JudgeConfig) -> None:
        """Creates the reward sources and imports the functions."""
        self.sources = sources_of(config)

    def judge(self, samples: list[Sample]) -> pa.Table:
        """Scores `samples`: one column `reward_NAME` per source.

        Raises:
            JudgeError: a source failed; names source and sample.
        """
        return pa.table(
            {f"reward_{source.name}": pa.array(source.score(samples), pa.float32()) for source in self.sources}
        )
