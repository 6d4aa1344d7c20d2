"""The judge: rewards answers by what is no model of ours, a Python function or an HTTP endpoint."""

from __future__ import annotations

import pyarrow as pa

from actors.config import JudgeConfig
from actors.rewards.function import FunctionJudge
from actors.rewards.http import HttpJudge
from actors.rewards.sample import Judge, Sample
from actors.roles.worker import Worker


def sources_of(config: JudgeConfig) -> list[Judge]:
    """The functions, imported, and the endpoints. Raises ConfigError where one is not what it should be."""
    functions = [FunctionJudge(name, source) for name, source in config.functions.items()]
    return [*functions, *(HttpJudge(name, source) for name, source in config.endpoints.items())]


class JudgeWorker(Worker):
    """One process with all sources. A function that hangs or takes the process down costs this one only."""

    def setup(self, config: JudgeConfig) -> None:
        """Imports the functions."""
        self.sources = sources_of(config)

    def judge(self, samples: list[Sample]) -> pa.Table:
        """A column `reward_NAME` of every source. Raises JudgeError, which names source and sample."""
        return pa.table(
            {f"reward_{source.name}": pa.array(source.score(samples), pa.float32()) for source in self.sources}
        )
